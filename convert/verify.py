"""Is the converted file the model that it was made from? Stages, each with its figure and its threshold.

"Good before, bad after" has one of three causes, and a stage for each: other token ids, other logits from the same
ids, or a quantization that costs too much. The first two are held against Hugging Face, the last against the F32 file
in the same runtime with the same float32 cache, so that nothing but the weights differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.errors import ModelError

__all__ = ["LINES", "Figure", "against_source", "logits", "quantized", "token_ids"]

Logits = NDArray[np.float32]

# Written for this purpose: biomedical prose, then what tokenizers stumble over.
LINES = (
    "Naloxone reverses the antihypertensive effect of clonidine in spontaneously hypertensive rats.",
    "A 64-year-old woman with stage IV non-small-cell lung cancer received 200 mg of pembrolizumab every 3 weeks.",
    "Serum creatinine rose from 0.9 to 2.4 mg/dL (P<0.001; 95% CI: 1.2-3.6) within 48 h of amphotericin B.",
    "Mutations in BRCA1 (c.68_69delAG, p.Glu23ValfsTer17) raise the lifetime risk of breast and ovarian cancer.",
    "N-acetyl-p-benzoquinone imine (NAPQI), 1,25-(OH)2D3, [3H]-SCH 23390 and 5'-deoxy-5-fluorouridine were assayed.",
    "IL-6, TNF-α and IFN-γ fell, but TGF-β1 didn't; κ- and μ-opioid agonists weren't given at 37 °C.",
    "We'd expect it: they've shown the patient's QT interval (QTc ≥ 500 ms) isn't prolonged; I'm sure you'll see.",
    "患者は高血圧と2型糖尿病を有し、メトホルミン500mgを1日2回服用していた。",
    "Ménière's disease, Sjögren's syndrome, naïve T cells, a 5 µm section, Ångström, Ærø, façade, œdema, cafe\u0301.",
    "Doses:\n  aspirin   100 mg\n\n\twarfarin\t5 mg\r\nheparin 5,000 IU   \n   ",
    "1234567890 12 345 6789 3.14159 1e-10 ½ ² ₂ Ⅳ １２３ ١٢٣",
    "🙂 👩🏽\u200d⚕️ 🧬💊 x̂ \u00a0non-breaking\u2009thin\u3000wide\u200bzero",
    "    four spaces, then  two, then a tab\tand the end  ",
    "<Chemical>x</Chemical> @@y## [\"a\", \"b\"] {\"k\": [[0, 8]]} A\\B __init__ ~~~ ---- ....!!!",
)  # fmt: skip
_POSITIONS = 384  # tokens whose logits are compared at most: enough to tell, seconds on a small model

_LOGIT_THRESHOLD = 1e-3  # of the standard deviation of the reference's logits
# Level -> (mean KL divergence in nats at most, share of positions with the same best token at least). Set to notice a
# broken file, not to choose a level, which F1 does: tiny random models, all near ties, keep 0.91 to 0.99 at Q8_0.
QUANTIZED = {"F16": (1e-4, 0.98), "Q8_0": (1e-2, 0.90)}


@dataclass(frozen=True, slots=True)
class Figure:
    """What one stage measured; `at_least` tells on which side of the threshold it must lie."""

    stage: str
    figure: float
    threshold: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the threshold is kept; never for NaN."""
        return self.figure >= self.threshold if self.at_least else self.figure <= self.threshold

    def to_json(self) -> dict[str, Any]:
        bound = "at_least" if self.at_least else "at_most"
        return {"stage": self.stage, "figure": self.figure, bound: self.threshold}


def against_source(source: Path, reference: Path, lines: Sequence[str]) -> list[Figure]:
    """The F32 file `reference` against the folder it was made from. Raises ModelError at the first stage that fails."""
    with _open(reference) as model:
        return [token_ids(source, model, lines), logits(source, model, lines)]


def token_ids(source: Path, model: LlamaCpp, lines: Sequence[str]) -> Figure:
    """Lines whose token ids differ from those of tokenizer.json; the special tokens are a line of their own.

    Raises ModelError with the first line, token and text that differ.
    """
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(source / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    special = "".join(f" x{token.content}y" for token in theirs.get_added_tokens_decoder().values())
    for number, line in enumerate([*lines, special], start=1):
        text = theirs.normalizer.normalize_str(line) if theirs.normalizer else line
        expected = theirs.encode(line, add_special_tokens=False).ids
        got = model.tokenize(text.encode(), special=True)
        if expected != got:
            at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), len(expected))
            a, b = theirs.decode(expected[at : at + 3]), b"".join(model.piece(i) or b"" for i in got[at : at + 3])
            told = f"line {number}, token {at}: {expected[at : at + 3]} ({a!r}) became {got[at : at + 3]} ({b!r})"
            raise ModelError(f"verify: token ids: {told}; the pre-tokenizer or the merges were not understood")
    return Figure("token ids: lines that differ", 0.0, 0.0)


def logits(source: Path, model: LlamaCpp, lines: Sequence[str]) -> Figure:
    """The largest |difference| of a logit from transformers in float32, over the standard deviation of the latter.

    Raises ModelError with the first token where it is too large.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    settings = {
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "local_files_only": True,
        "use_safetensors": True,
    }
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        theirs = load(source, **settings).eval()
    except Exception as error:  # whatever it stumbles over, the checkpoint is not one that transformers can read
        raise ModelError(f"{source}: transformers cannot load it: {error!r}") from error
    worst = 0.0
    for ids in _sequences(model, lines):
        with torch.inference_mode():
            expected = theirs(torch.tensor([ids])).logits[0].double().numpy()
        distance = np.abs(expected - _logits(model, ids)).max(axis=1) / expected.std()  # (positions,)
        wrong = np.flatnonzero(~(distance <= _LOGIT_THRESHOLD))
        if wrong.size:
            at = int(wrong[0])
            told = f"{distance[at]:.2g} standard deviations at token {at} ({model.piece(ids[at])!r})"
            cause = "rotary embedding or its scaling" if at else "a tensor or a head count"
            raise ModelError(f"verify: F32 logits against transformers: {told}; probably {cause}")
        worst = max(worst, float(distance.max()))
    return Figure("F32 logits: max difference from transformers / std", worst, _LOGIT_THRESHOLD)


def quantized(reference: Path, path: Path, level: str, lines: Sequence[str]) -> list[Figure]:
    """What `level` costs: KL divergence from F32 and agreement on the best token. Raises ModelError where too much."""
    with _open(reference) as model:
        sequences = _sequences(model, lines)
        expected = [_logits(model, ids) for ids in sequences]
    divergences, same = [], []
    with _open(path) as model:
        for ids, theirs in zip(sequences, expected, strict=True):
            ours = _logits(model, ids)
            p, q = _log_softmax(theirs), _log_softmax(ours)
            divergences.append((np.exp(p) * (p - q)).sum(axis=1))  # (positions,)
            same.append(theirs.argmax(axis=1) == ours.argmax(axis=1))
    divergence, agreement = float(np.concatenate(divergences).mean()), float(np.concatenate(same).mean())
    most, least = QUANTIZED[level]
    figures = [
        Figure(f"{level}: mean KL divergence from F32", divergence, most),
        Figure(f"{level}: same best token as F32", agreement, least, at_least=True),
    ]
    for figure in figures:
        if not figure.holds:
            told = f"{figure.figure:.3g}, threshold {figure.threshold:g}"
            raise ModelError(
                f"verify: {figure.stage}: {told}; the weights lose too much at {level}, use a larger level"
            )
    return figures


def _open(path: Path) -> LlamaCpp:
    """One thread: several wait for each other at every layer, on a busy machine a minute instead of a second."""
    return LlamaCpp(path, cache="f32", threads=1)


def _sequences(model: LlamaCpp, lines: Sequence[str]) -> list[list[int]]:
    """The lines as token ids, up to a number of positions in all; none longer than the context."""
    sequences, left = [], _POSITIONS
    for line in lines:
        ids = model.tokenize(line.encode(), special=False)[: min(left, model.context)]
        left -= len(ids)
        if ids:
            sequences.append(ids)
    return sequences


def _logits(model: LlamaCpp, ids: Sequence[int]) -> Logits:
    """The logits after each token. They are fed one by one, which runs the cache too. Shape: (positions, vocabulary)"""
    sequence = model.new_sequence()
    try:
        return np.stack([np.array(model.eval(sequence, [token])) for token in ids])
    finally:
        model.release(sequence)


def _log_softmax(values: Logits) -> NDArray[np.float64]:
    """Along the last axis. Shape: as it came."""
    shifted = values.astype(np.float64) - values.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
