"""Assemble the model to write: base, merged adapter, trimmed vocabulary, and the tokenizer's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge import prompts
from bioner_edge.convert import architectures, domain, vocabulary
from bioner_edge.convert.about import About
from bioner_edge.convert.checkpoint import Checkpoint, Source
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.merging.merge import Merged
from bioner_edge.convert.verification.verify import Witness
from bioner_edge.convert.vocabulary.chat import choose
from bioner_edge.convert.vocabulary.special import chat_template, optional
from bioner_edge.convert.vocabulary.tokenizer_files import join
from bioner_edge.convert.vocabulary.trim import Trimmed, trim_vocabulary
from bioner_edge.convert.vocabulary.unused_tokens import drop_unused
from bioner_edge.errors import UsageError
from bioner_edge.report import Report

__all__ = ["SourceModel", "assemble", "prompting", "tell_prompt", "trim"]


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model as it will be written.

    `source` provides its weights, `whole` the same before vocabulary trimming, with digests of what was read; `tokens`
    is the folder of its tokenizer; `kept` are the original ids of its tokens, None where the vocabulary was not
    trimmed; `merged` is set where an adapter was merged; `switches` are the variables of its chat template besides the
    messages.
    """

    base: Path
    adapter: Path | None
    source: Source
    whole: Witness
    tokens: Path
    pre: str | None = None
    kept: NDArray[np.int64] | None = None
    merged: Merged | None = None
    switches: Mapping[str, prompts.Value] = field(default_factory=dict)

    @property
    def tokenizer(self) -> vocabulary.Tokenizer:
        """The tokenizer as the GGUF will hold it. Raises ModelError where llama.cpp would tokenize differently."""
        read = vocabulary.read(self.tokens, architectures.positive(self.source.config, "vocab_size"), self.pre)
        if read.prompt_template is None:
            return read
        return replace(read, prompt_template=prompts.fix_values(read.prompt_template, self.switches))

    def with_folder(self, folder: Path) -> SourceModel:
        """The same model, read from a folder where it was saved, so that it is not merged again."""
        whole = Witness(Checkpoint(folder))
        whole.digests.update(self.whole.digests)  # of what was saved
        return replace(self, source=whole, whole=whole)

    @property
    def origin(self) -> dict[str, Any]:
        """What it was made from, for the manifest, which has the hashes beside it."""
        found: dict[str, Any] = {"base": self.base.resolve().name}
        if self.adapter is not None and self.merged is not None:
            adapter = self.merged.adapter
            found |= {
                "adapter": self.adapter.resolve().name,
                "trained_on": adapter.settings.base.encode(errors="replace").decode(),
                "low_rank_tensors": len(adapter.targets),
                "whole_tensors": len(adapter.replaced) + len(adapter.originals),
                "trained_tokens": sum(len(tokens.ids) for tokens in adapter.tokens.values()),
                "qlora_base": "dequantized" if self.merged.rounded else "original",
                "untied": self.merged.untied,
            }
        if self.kept is not None:
            found["tokens_kept"] = len(self.kept)
        if self.switches:
            found["template_options"] = dict(self.switches)
        return found


def assemble(
    base: Path,
    adapter: Path | None,
    work: Path,
    report: Report,
    *,
    qlora_base: str = "original",
    pre: str | None = None,
    template_options: Mapping[str, prompts.Value] | None = None,
) -> SourceModel:
    """The base with the adapter merged into it; only headers are read yet.

    `work` is a folder for temporary files. Raises UsageError for options that do not go together.
    """
    if adapter is None and qlora_base != "original":
        raise UsageError(f"--qlora-base {qlora_base} needs an adapter to merge; omit it")
    bare = Checkpoint(base)
    merged = Merged(bare, Adapter(adapter), qlora_base=qlora_base) if adapter is not None else None
    tokens, taken = join(base, adapter, work / "tokens") if adapter is not None else (base, [])
    if taken:
        report.step(f"taken from the adapter's folder: {', '.join(taken)}")
    whole = Witness(merged or bare)
    rows = architectures.positive(whole.config, "vocab_size")
    tokens, left = drop_unused(tokens, rows, work / f"{tokens.name}-fed")
    if left:
        message = f"the embedding has only {rows} rows, and no text or prompt uses the token"
        report.step(f"left out of the vocabulary: {', '.join(map(repr, left))}; {message}")
    template = chat_template(tokens, optional(tokens / "tokenizer_config.json"))
    switches = choose(template, template_options or {})
    return SourceModel(base, adapter, whole, whole, tokens, pre, merged=merged, switches=switches)


def trim(model: SourceModel, texts: Sequence[Path], about: About, work: Path, report: Report) -> SourceModel:
    """The model with only the tokens that `texts`, the prompts about them and their answers need."""
    report.step(f"trimming the vocabulary to {', '.join(text.name for text in texts)}")
    kept = trim_vocabulary(model.tokens, _tokenized_parts(model, texts, about, report), work / "tokenizer", model.pre)
    report.step(f"vocabulary: {len(kept):,} of {model.source.config['vocab_size']:,} tokens kept")
    return replace(model, source=Trimmed(model.whole, kept), tokens=work / "tokenizer", kept=kept)


def prompting(model: SourceModel, about: About) -> domain.Prompting:
    """How this model will be prompted for a document."""
    tokenizer = model.tokenizer
    names = {"bos_token": tokenizer.bos, "eos_token": tokenizer.ends[0]}
    written = {role: "" if number is None else tokenizer.tokens[number] for role, number in names.items()}
    return domain.Prompting(
        about.formats, about.labels, about.guidelines, about.unit, tokenizer.prompt_template, written
    )


def tell_prompt(model: SourceModel, about: About, report: Report) -> None:
    """Report the variables set in the chat template and what in its prompts makes answers worse."""
    if model.switches:
        written = {name: v if isinstance(v, str) else json.dumps(v) for name, v in model.switches.items()}
        options = ", ".join(f"{name}={value}" for name, value in written.items())
        report.step(f"chat template: {options}, in every prompt")
    if about.formats:
        notes: list[str] = []
        prompting(model, about).questions(about.formats[0], notes.append)
        for note in dict.fromkeys(notes):
            report.step(f"warning: {note}")


def _tokenized_parts(model: SourceModel, texts: Sequence[Path], about: About, report: Report) -> Iterator[str]:
    """Each part of every prompt and answer that extraction tokenizes by itself; repeated parts come once."""
    seen, empty = set(), True
    for question, text, answer in domain.examples(domain.documents(texts, report.step), prompting(model, about)):
        for part in (question.before, question.after):
            if part and part not in seen:
                seen.add(part)
                yield part
        yield text
        yield answer
        empty = empty and not text.strip()
    if empty:
        raise UsageError(f"--trim-vocab {texts[0]}: contains no text")
