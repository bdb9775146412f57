"""Verify that a converted file is the model that it was made from: stages, each with a figure and a threshold.

A converted model that is worse than its source has one of four causes, and a stage for each: a different merge,
different token ids, different logits from the same ids, or a level that loses too much. The first three are compared
with Hugging Face, the last with the F32 file in the same runtime and the same float32 cache, so that only the weights
differ. Finally, documents are extracted with each file as a user would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends import Backend
from bioner_edge.backends.loading import load_backend
from bioner_edge.convert.verification import measure
from bioner_edge.convert.verification.samples import DOCUMENTS
from bioner_edge.document import Span
from bioner_edge.errors import ModelError
from bioner_edge.extract import Extractor
from bioner_edge.report import Figure

if TYPE_CHECKING:
    from bioner_edge.convert.checkpoint import Source

__all__ = ["Found", "Witness", "extraction", "greedy", "judge", "logits", "token_ids", "weights"]

_LONGEST = 256  # tokens of one sequence whose logits are compared
_WRITTEN = 40  # tokens that each model generates
_ROUNDING = 1e-6  # a few of float32's last bits
Found = set[tuple[str, tuple[Span, ...]]]  # the entities of one document


class Witness:
    """A source that records the digest of each tensor that is read, for `weights`."""

    def __init__(self, source: Source) -> None:
        self.folder, self.config, self.files = source.folder, source.config, source.files
        self._source = source
        self.digests: dict[str, bytes] = {}

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._source.shapes()

    def tensor(self, name: str) -> NDArray[np.float32]:
        tensor = self._source.tensor(name)
        self.digests[name] = _digest(tensor)
        return tensor


def weights(reference: Any, witness: Witness, merged: bool) -> Figure:
    """The largest |difference| of a weight from that of the torch model `reference`, over the tensor's largest weight.

    It is 0 where all are equal bit for bit, as on the processors that the merge was written for; on others torch may
    round the last bit differently. Raises ModelError with the first tensor where it is larger than that.
    """
    theirs = reference.state_dict()
    worst = 0.0
    stage = f"weights: max difference from {'the merge by peft' if merged else 'transformers'} / largest weight"
    for name, digest in witness.digests.items():
        if name in theirs and _digest(theirs[name].numpy()) == digest:
            continue
        distance = _distance(theirs[name].numpy(), witness.tensor(name)) if name in theirs else float("inf")
        if not distance <= _ROUNDING:
            cause = "the merge differs from peft's" if merged else "the checkpoint was read differently"
            raise ModelError(f"verify: {stage}: {distance:.2g} in {name!r}; {cause}")
        worst = max(worst, distance)
    return Figure(stage, worst, _ROUNDING)


def _distance(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    if theirs.shape != ours.shape:
        return float("inf")
    return float(
        np.abs(theirs - ours).max(initial=0.0) / max(np.abs(theirs).max(initial=0.0), np.finfo(np.float32).tiny)
    )


def token_ids(
    model: Backend, encode: Callable[[str], list[int]], lines: Sequence[str], tell: Callable[[str], None]
) -> Figure:
    """The lines whose token ids differ from those of `encode`, Hugging Face's tokenizer; `tell` receives each of them.

    Raises ModelError with the first line and token that differ.
    """
    differing = []
    for number, line in enumerate(lines, start=1):
        expected, got = encode(line), model.tokenize(line.encode(), special=True)
        if expected != got:
            at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), None)
            at = min(len(expected), len(got)) if at is None else at
            a, b = (b"".join(_piece(model, i) for i in ids[at : at + 3]) for ids in (expected, got))
            differing.append(
                f"line {number}, token {at}: {expected[at : at + 3]} ({a!r}) became {got[at : at + 3]} ({b!r})"
            )
    for line_message in differing:
        tell(line_message)
    if differing:
        cause = "the pre-tokenizer or the merges were misread: name another with --pre"
        raise ModelError(f"verify: token ids: {len(differing)} of {len(lines)} lines differ; {differing[0]}; {cause}")
    return Figure(f"token ids: of {len(lines)} lines, those that differ from Hugging Face", 0.0, 0.0)


def logits(
    reference: Any,
    model: Backend,
    lines: Sequence[str],
    *,
    tolerance: float,
    kept: NDArray[np.int64] | None = None,
) -> Figure:
    """The largest |difference| of a logit from torch in float32, over the standard deviation of the latter.

    `tolerance` is its limit, `kept` the reference's ids of the file's tokens where the vocabulary was trimmed. Raises
    ModelError with the first token where it is exceeded.
    """
    stage, worst = "F32 logits: max difference from transformers / std", Figure("", 0.0, tolerance)
    together = " ".join(lines)  # one long text: errors in rotary embeddings and windows show at a distance
    for ids in measure.cut(map(partial(_ids, model), [together, *lines]), min(model.context, _LONGEST)):
        ours, expected = measure.logits(model, ids), _expected(reference, model, ids, kept)
        distance = np.abs(expected - ours).max(axis=1) / expected.std()  # (positions,)
        figure = Figure(stage, float(distance.max()), tolerance)
        if not figure.holds:  # is it the rounding of float32 itself?
            exact = _expected(reference.double(), model, ids, kept)
            reference.float()
            distance, theirs = (np.abs(exact - given).max(axis=1) / exact.std() for given in (ours, expected))
            limit = max(tolerance, 2 * float(theirs.max()))
            figure = Figure(
                f"{stage}, in float64, of which float32 is off by {theirs.max():.2g}", distance.max(), limit
            )
        if not figure.holds:
            at = int(np.flatnonzero(~(distance <= figure.threshold))[0])
            message = f"{distance[at]:.2g} standard deviations at token {at} ({_piece(model, ids[at])!r})"
            cause = "rotary embedding or its scaling" if at else "a tensor or a head count"
            raise ModelError(f"verify: F32 logits against transformers: {message}; probably {cause}")
        worst = max(worst, figure, key=lambda f: f.figure)
    return worst


def greedy(
    reference: Any,
    model: Backend,
    prompts: Sequence[Sequence[int]],
    *,
    tolerance: float,
    kept: NDArray[np.int64] | None = None,
) -> Figure:
    """How many of the tokens that both generate greedily after `prompts` differ.

    Both are fed the reference's tokens, so that a difference is counted once. Where the reference's two best logits are
    closer than twice `tolerance`, in standard deviations, float32 does not decide their order: reported, not counted.
    """
    differ = ties = 0
    written = min(_WRITTEN, model.context // 2)
    for prompt in prompts:
        read, sequence = list(prompt[: model.context - written]), model.new_sequence()
        continued = _Continued(reference, kept)
        for _ in range(written):
            ours, row = int(model.eval(sequence, read).argmax()), continued(read)[: model.vocabulary_size]
            theirs = int(row.argmax())
            if ours != theirs:
                near = bool(row[theirs] - row[ours] <= 2 * tolerance * row.std())
                ties, differ = ties + near, differ + (not near)
            read = [theirs]
        model.release(sequence)
    message = f", {ties} near ties aside" if ties else ""
    stage = f"greedy: of {written} tokens after each of {len(prompts)} prompts, those that differ from transformers"
    return Figure(stage + message, float(differ), 0.0)


class _Continued:
    """The reference model with its cache, fed incrementally. `kept` as in `logits`."""

    def __init__(self, reference: Any, kept: NDArray[np.int64] | None) -> None:
        self._reference, self._kept, self._past = reference, kept, None

    def __call__(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """The logits after `ids`. Shape: (vocabulary,)"""
        import torch

        theirs = list(ids) if self._kept is None else self._kept[list(ids)].tolist()
        with torch.inference_mode():
            out = self._reference(torch.tensor([theirs]), past_key_values=self._past, use_cache=True)
        self._past = out.past_key_values
        row: NDArray[np.float64] = out.logits[0, -1].double().numpy()
        return row if self._kept is None else row[self._kept]


def _ids(model: Backend, line: str) -> list[int]:
    return model.tokenize(line.encode(), special=False)


def _expected(
    reference: Any, model: Backend, ids: Sequence[int], kept: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """The reference's logits after each token. Shape: (positions, the file's vocabulary)"""
    import torch

    theirs = list(ids) if kept is None else kept[list(ids)].tolist()
    with torch.inference_mode():
        found: NDArray[np.float64] = reference(torch.tensor([theirs])).logits[0].double().numpy()
    return found[:, : model.vocabulary_size] if kept is None else found[:, kept]


def extraction(
    path: Path, level: str, expected: Sequence[Found] | None = None, **asked: Any
) -> tuple[list[Figure], list[Found]]:
    """What a user would extract from `DOCUMENTS`: unreadable answers, and agreement with `expected`.

    `asked` is what `Extractor` takes: format, labels, unit, guidelines. The first figure is zero by construction,
    unless the vocabulary differs from the file's. Raises UsageError where a prompt does not fit the context.
    """
    with closing(load_backend(path, threads=measure.threads(path))) as model:
        read = Extractor(model, **asked)
        extractions = [read(text) for text in DOCUMENTS]
    found = [{entity.key for entity in extraction.entities} for extraction in extractions]
    problems = [problem for extraction in extractions for _, problem in extraction.problems]
    unreadable = sum(problem.kind != "cut" for problem in problems)  # cut: the model rambles, but in the format
    figures = [Figure(f"{level}: unreadable answers about {len(DOCUMENTS)} documents", float(unreadable), 0.0)]
    if expected is not None:
        both = 2 * sum(len(a & b) for a, b in zip(found, expected, strict=True))
        all_ = sum(len(a) + len(b) for a, b in zip(found, expected, strict=True))
        figures.append(Figure(f"{level}: F1 of its entities against those of F32", both / all_ if all_ else 1.0))
    return figures, found


def judge(figures: Sequence[Figure], remedy: str) -> list[Figure]:
    """The figures, if all pass. Raises ModelError with the first one that does not, and what to do about it."""
    for figure in figures:
        if not figure.holds:
            raise ModelError(f"verify: {figure.stage}: {figure.figure:.3g}, must be {figure.bound}; {remedy}")
    return list(figures)


def _piece(model: Backend, token: int) -> bytes:
    return model.piece(token) or b"" if 0 <= token < model.vocabulary_size else b"?"


def _digest(tensor: NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(tensor).data, digest_size=16).digest()
