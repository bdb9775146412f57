"""A byte-level BPE tokenizer (tokenizer.json) as GGUF metadata: tokens, types, merges, special ids, chat template.

llama.cpp knows how text is split before merging by a name. It is told here from the patterns in tokenizer.json, which
stay what they are when the vocabulary changes, and `verify` then proves that the ids are equal. Whatever llama.cpp
would do otherwise than the tokenizer is refused.

The text is never normalised at run time, because offsets count in the document as it is: a model whose tokenizer has
NFC (Qwen) sees a decomposed letter as its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from bioner_edge.convert.checkpoint import load_json
from bioner_edge.errors import ModelError

__all__ = ["PRE_TOKENIZERS", "Tokenizer", "read"]

_GPT2 = "ByteLevel(use_regex)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# How tokenizer.json splits text, and whether a word that is a token skips the merges -> llama.cpp's name for it.
PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    (("Digits(individual)", _GPT2), False): "smollm",
    ((_LLAMA3, "ByteLevel"), True): "llama-bpe",
    ((_LLAMA3, "ByteLevel"), False): "smaug-bpe",
    ((_QWEN2, "ByteLevel"), False): "qwen2",
}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What a GGUF says of a tokenizer. `tokens` are in order of id; `ends` are the ids that end an answer."""

    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    bos: int | None
    ends: tuple[int, ...]
    pad: int | None
    add_bos: bool
    add_eos: bool
    chat_template: str | None

    def write(self, writer: GGUFWriter) -> None:
        """Add the tokenizer's keys. What is not known is left out, and add_bos and add_eos are always written,
        because llama.cpp has defaults of its own by `pre`."""
        writer.add_tokenizer_model("gpt2")  # the name of byte-level BPE, whoever's it is
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        for add, value in (
            (writer.add_bos_token_id, self.bos),
            (writer.add_pad_token_id, self.pad),
            *zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), self.ends, strict=False),
        ):
            if value is not None:
                add(value)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read(folder: Path, rows: int) -> Tokenizer:
    """The tokenizer of a model's folder; `rows` is the height of its embedding (vocab_size).

    Raises ModelError, naming the file and what stands in it, for a tokenizer that llama.cpp would read otherwise.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path}: missing; save the tokenizer with a fast class of transformers")
    record = load_json(path)
    try:
        model = record["model"]
        _refuse(path, record, model)
        tokens, types = _tokens(path, model["vocab"], record.get("added_tokens") or [], rows)
        merges = tuple(m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a tokenizer that can be read ({error!r}); save it again") from None
    if not merges:
        raise ModelError(f"{path}: no merges, which llama.cpp cannot load; train a tokenizer with some")
    settings = _optional(folder / "tokenizer_config.json")
    ids = {token: index for index, token in enumerate(tokens)}
    before, after = _template(record.get("post_processor"))
    add_bos, add_eos = settings.get("add_bos_token"), settings.get("add_eos_token")
    return Tokenizer(
        pre=_pre_tokenizer(path, record.get("pre_tokenizer"), bool(model.get("ignore_merges"))),
        tokens=tokens,
        types=types,
        merges=merges,
        bos=_special(folder, settings, ids, "bos"),
        ends=_ends(folder, settings, ids),
        pad=_special(folder, settings, ids, "pad"),
        add_bos=add_bos if isinstance(add_bos, bool) else before,
        add_eos=add_eos if isinstance(add_eos, bool) else after,
        chat_template=_chat_template(folder, settings),
    )


def _refuse(path: Path, record: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raises ModelError for what llama.cpp's byte-level BPE does not do."""
    kind = model.get("type", "BPE")
    wrong = [f"model type {kind!r}"] if kind != "BPE" else []
    wrong += [f"{key} {model[key]!r}" for key in ("dropout", "byte_fallback") if model.get(key)]
    wrong += [f"{key} {model[key]!r}" for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if (record.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        wrong.append(f"normalizer {_shown(record['normalizer'])}")
    if (record.get("decoder") or {}).get("type") != "ByteLevel":
        wrong.append(f"decoder {_shown(record.get('decoder'))}")
    for token in record.get("added_tokens") or []:
        wrong += [f"{key} of {token['content']!r}" for key in ("lstrip", "rstrip", "single_word") if token.get(key)]
    if wrong:
        raise ModelError(f"{path}: {wrong[0]} cannot be converted; only plain byte-level BPE can")


def _tokens(
    path: Path, vocabulary: Mapping[str, int], added: list[dict[str, Any]], rows: int
) -> tuple[tuple[str, ...], tuple[TokenType, ...]]:
    """Tokens and types in order of id, as many as the embedding has rows; rows without a token are UNUSED."""
    found = {index: (token, TokenType.NORMAL) for token, index in vocabulary.items()}
    for token in added:
        kind = TokenType.CONTROL if token.get("special") else TokenType.USER_DEFINED
        found[token["id"]] = (token["content"], kind)
    if max(found) >= rows:
        raise ModelError(f"{path}: token id {max(found)}, but the embedding has {rows} rows; resize it")
    if missing := [chr(c) for c in _byte_characters() if chr(c) not in vocabulary]:
        raise ModelError(f"{path}: no token for {len(missing)} of the bytes ({missing[0]!r}); train with all 256")
    table = [found.get(index, (f"[PAD{index}]", TokenType.UNUSED)) for index in range(rows)]
    if len({token for token, _ in table}) < rows:
        raise ModelError(f"{path}: two ids have the same text, which llama.cpp cannot load; train it again")
    return tuple(token for token, _ in table), tuple(kind for _, kind in table)


def _byte_characters() -> list[int]:
    """The code points that stand for the 256 bytes in byte-level BPE: printable Latin-1 for itself, then 256 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printable + list(range(256, 512 - len(printable)))


def _pre_tokenizer(path: Path, rule: Mapping[str, Any] | None, ignore_merges: bool) -> str:
    """llama.cpp's name for how the text is split. Raises ModelError, showing the rule, for one that is not listed."""
    rules = (rule or {}).get("pretokenizers", [rule]) if rule else []
    key = tuple(_described(part) for part in rules), ignore_merges
    if key not in PRE_TOKENIZERS:
        names = ", ".join(PRE_TOKENIZERS.values())
        shown = " then ".join(key[0]) or "none"
        raise ModelError(f"{path}: unknown pre-tokenizer {shown} (ignore_merges {ignore_merges}); known: {names}")
    return PRE_TOKENIZERS[key]


def _described(part: Mapping[str, Any]) -> str:
    """One step of the splitting as the table above spells it; anything else as its JSON, which matches nothing."""
    match part:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}:
            return "ByteLevel"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return _GPT2
        case {"type": "Digits", "individual_digits": True}:
            return "Digits(individual)"
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
            return regex
    return _shown(part)


def _template(processor: Mapping[str, Any] | None) -> tuple[bool, bool]:
    """Whether the post-processor writes something before, and after, a single text."""
    steps = (processor or {}).get("processors", [processor])
    for step in steps:
        if step and step.get("type") == "TemplateProcessing":
            kinds = ["Sequence" in part for part in step["single"]]
            return not kinds[0], not kinds[-1]
    return False, False


def _special(folder: Path, settings: Mapping[str, Any], ids: Mapping[str, int], role: str) -> int | None:
    """The id of the `bos` or `pad` token: by tokenizer_config.json, else by config.json."""
    token = settings.get(f"{role}_token")
    if token is not None:
        return _id(folder, token, ids, role)
    number = load_json(folder / "config.json").get(f"{role}_token_id")
    return number if isinstance(number, int) and 0 <= number < len(ids) else None


def _ends(folder: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[int, ...]:
    """The ids that end an answer, the tokenizer's own first; GGUF has three keys for them (eos, eot, eom)."""
    ends = [_id(folder, settings["eos_token"], ids, "eos")] if settings.get("eos_token") is not None else []
    for name in ("generation_config.json", "config.json"):
        numbers = _optional(folder / name).get("eos_token_id")
        ends += [n for n in (numbers if isinstance(numbers, list) else [numbers]) if isinstance(n, int) and n >= 0]
    ends = list(dict.fromkeys(ends))
    if not ends:
        raise ModelError(f"{folder}: no eos_token in tokenizer_config.json or config.json; no answer would end")
    if len(ends) > 3 or max(ends) >= len(ids):
        raise ModelError(f"{folder}: end tokens {ends}: at most 3, each below {len(ids)}; mend generation_config.json")
    return tuple(ends)


def _id(folder: Path, token: Any, ids: Mapping[str, int], role: str) -> int:
    """The id of a token that tokenizer_config.json spells as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str) or content not in ids:
        raise ModelError(f"{folder / 'tokenizer_config.json'}: the {role} token {content!r} is not in tokenizer.json")
    return ids[content]


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template in a file of its own, as transformers 5 saves it, else the one in tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    template = path.read_text("utf-8") if path.is_file() else settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((row["template"] for row in template if row.get("name") == "default"), None)
    return template


def _optional(path: Path) -> dict[str, Any]:
    return load_json(path) if path.is_file() else {}


def _shown(part: Any) -> str:
    return json.dumps(part, ensure_ascii=False)
