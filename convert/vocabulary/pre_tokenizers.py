"""How text is split before merging: llama.cpp's names for it, told from the patterns in tokenizer.json.

The patterns stay what they are when the vocabulary changes; a hash of token ids, by which llama.cpp's own script tells
them, does not. Each row was held against Hugging Face on real text, and a test repeats that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bioner_edge.convert.vocabulary.tokenizer_json import Step, show
from bioner_edge.errors import ModelError, UsageError, unknown_name

__all__ = ["KNOWN", "PRE_TOKENIZERS", "choose"]

_GPT2 = "ByteLevel(use_regex)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = _QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")

# How tokenizer.json splits text, and whether a word that is a token skips the merges -> llama.cpp's name for it.
# gpt-2: GPT-2, OLMo; smollm: SmolLM, Granite 3, StarCoder; llama-bpe: Llama 3, SmolLM3; smaug-bpe: OLMo 2, Phi-4,
# Granite 4; qwen2: Qwen 2 to 3; qwen35: Qwen 3.5.
PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    (("Digits(individual)", _GPT2), False): "smollm",
    ((_LLAMA3, "ByteLevel"), True): "llama-bpe",
    ((_LLAMA3, "ByteLevel"), False): "smaug-bpe",
    ((_QWEN2, "ByteLevel"), False): "qwen2",
    ((_QWEN35, "ByteLevel"), False): "qwen35",
}
_COVERING = frozenset({_LLAMA3, _QWEN2, _QWEN35})  # whatever the text, nothing of it stands between two matches

# Every name for byte-level BPE that llama.cpp knows in llama-cpp-python 0.3.36. There are four others, gemma4,
# granite-embed-multi-311m, sarvam-moe and whitespace, which do not spell bytes.
_PLAIN = (
    "a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe", "codeshell",
    "cohere2moe", "command-r", "dbrx", "deepseek-coder", "deepseek-llm", "deepseek-r1-qwen", "deepseek-v3",
    "default", "exaone", "exaone-moe", "exaone4", "f2llmv2", "falcon", "gigachat", "gpt-2", "gpt-4o",
    "gpt3-finnish", "granite-docling", "grok-2", "hunyuan", "hunyuan-dense", "hy_v4", "jais", "jais-2",
    "jina-de", "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "joyai-llm", "kanana2",
    "kimi-k2", "kormo", "laguna", "llada-moe", "llama4", "megrez", "mellum", "mellum2", "minerva-7b",
    "minimax-m2", "modern-bert", "mpt", "olmo", "phi-2", "poro-chat", "qwen2", "qwen35", "refact",
    "roberta-bpe", "seed-coder", "smaug-bpe", "smollm", "solar-open", "spark2_5", "stablelm2", "starcoder",
    "superbpe", "talkie", "tiny_aya", "trillion", "ufakzeka", "viking",
)  # fmt: skip
_IGNORING = (
    "falcon-h1", "falcon3", "glm4", "glm5", "granite-embed-multi-97m", "jina-v5-nano", "lfm2", "llama-bpe",
    "llama-v3", "llama3", "midm-2.0", "minicpm5", "pixtral", "tekken", "youtu",
)  # fmt: skip
KNOWN: dict[str, bool] = dict.fromkeys(_PLAIN, False) | dict.fromkeys(_IGNORING, True)
"""llama.cpp's names -> does it skip the merges of a word that is a token?"""


def choose(path: Path, steps: Sequence[Step], ignore_merges: bool, pre: str | None) -> str:
    """llama.cpp's name for how the text is split; `pre` where it is given.

    Raises UsageError for a name that llama.cpp does not know, ModelError for one that does not fit, and, showing it,
    for a rule that is not listed.
    """
    if pre is not None:
        if pre not in KNOWN:
            raise UsageError(unknown_name("pre-tokenizer", pre, sorted(KNOWN)))
        if KNOWN[pre] != ignore_merges:
            message = f"ignore_merges is {ignore_merges}, for llama.cpp's {pre!r} it is {KNOWN[pre]}"
            raise ModelError(f"{path}: {message}; name another pre-tokenizer")
        return pre
    key = tuple(_described(step) for step in steps), ignore_merges
    if key not in PRE_TOKENIZERS:
        what = f"unknown pre-tokenizer {' then '.join(key[0]) or 'none'} (ignore_merges {ignore_merges})"
        names = ", ".join(dict.fromkeys(PRE_TOKENIZERS.values()))
        raise ModelError(f"{path}: {what}; known: {names}; or name the one of llama.cpp that splits so with --pre")
    return PRE_TOKENIZERS[key]


def _described(step: Step) -> str:
    """One step of the splitting as the table above spells it; anything else as its JSON, which matches nothing."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}:
            return "ByteLevel"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return _GPT2
        case {"type": "Digits", "individual_digits": True}:
            return "Digits(individual)"
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
            return regex
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Removed", "invert": True}:
            return regex if regex in _COVERING else show(step)  # what stands between the matches is thrown away
    return show(step)
