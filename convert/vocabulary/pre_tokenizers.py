"""Pre-tokenizers: recognize llama.cpp's names for text splitting from the patterns in tokenizer.json.

The patterns stay the same when the vocabulary changes, unlike a hash of token ids, by which llama.cpp's own script
recognizes them. Each row was compared with Hugging Face on real text, and a test repeats that.
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

# (splitting steps of tokenizer.json, whether a word that is a token skips the merges) -> llama.cpp's name.
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
_COVERING = frozenset({_LLAMA3, _QWEN2, _QWEN35})  # their matches cover any text without gaps

# All byte-level BPE names of llama.cpp in llama-cpp-python 0.3.36. The four others, gemma4,
# granite-embed-multi-311m, sarvam-moe and whitespace, do not map bytes.
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
"""llama.cpp's name -> whether a word that is a token skips the merges."""


def choose(path: Path, steps: Sequence[Step], ignore_merges: bool, pre: str | None) -> str:
    """llama.cpp's name for how text is split; `pre` where it is given.

    Raises UsageError for a name that llama.cpp does not know, ModelError for one that does not fit, and for unknown
    splitting steps, which it shows.
    """
    if pre is not None:
        if pre not in KNOWN:
            raise UsageError(unknown_name("pre-tokenizer", pre, sorted(KNOWN)))
        if KNOWN[pre] != ignore_merges:
            message = f"ignore_merges is {ignore_merges}, but {KNOWN[pre]} in llama.cpp's {pre!r}"
            raise ModelError(f"{path}: {message}; name another pre-tokenizer")
        return pre
    key = tuple(_describe(step) for step in steps), ignore_merges
    if key not in PRE_TOKENIZERS:
        what = f"unknown pre-tokenizer {' then '.join(key[0]) or 'none'} (ignore_merges {ignore_merges})"
        names = ", ".join(dict.fromkeys(PRE_TOKENIZERS.values()))
        raise ModelError(f"{path}: {what}; known: {names}; or name llama.cpp's equivalent with --pre")
    return PRE_TOKENIZERS[key]


def _describe(step: Step) -> str:
    """One splitting step as in the table above; any other step as JSON, which matches nothing."""
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
            return regex if regex in _COVERING else show(step)  # text between the matches is discarded
    return show(step)
