"""Tokens by the tokenizers library: what is read of a text, what a token writes, and files that are not to be trusted.

That ids and pieces are those of llama.cpp is tested where files are prepared, in tests/convert/test_onnx_tokenizer.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

from bioner_edge.backends.byte_level import BYTES
from bioner_edge.backends.onnx.tokenizer import HfTokenizer
from bioner_edge.errors import ModelError

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
WORDS = ["in", "ing", "Ġin", "or", "<tag>", "or>", "<|color>", "<|end|>"]
MERGES = [("i", "n"), ("in", "g"), ("Ġ", "in"), ("o", "r")]


def added(index: int, content: str, special: bool, **more: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
    return {"id": index, "content": content, **flags, **more}


def record(vocabulary: dict[str, int], merges: Any, tokens: list[dict[str, Any]], **model: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "added_tokens": tokens,
        "pre_tokenizer": METASPACE if model.get("byte_fallback") else GPT2,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [" ".join(pair) for pair in merges], **model},
    }


def byte_level() -> dict[str, Any]:
    """All bytes, some words, two control tokens, and two that are not, one of them inside the name of a control token;
    300 is a token after a gap that is no text."""
    vocabulary = {character: byte for byte, character in BYTES.items()}
    vocabulary |= {word: 256 + n for n, word in enumerate(WORDS)} | {"no text": 300}
    special = {"<tag>": False, "or>": False, "<|color>": True, "<|end|>": True}
    return record(vocabulary, MERGES, [added(vocabulary[t], t, s) for t, s in special.items()])


def sentence_piece() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁▁", "<t▁>", "\t\t"]
    vocabulary = {token: n for n, token in enumerate(tokens)} | {"\t": 11}  # which is <0x09>
    names = [added(0, "<unk>", True), added(1, "<s>", True), added(vocabulary["<t▁>"], "<t▁>", False)]
    merges = [("▁", "a"), ("▁", "▁"), ("\t", "\t")]
    return record(vocabulary, merges, names, byte_fallback=True, unk_token="<unk>")


def load(folder: Path, written: Any, ends: frozenset[int] = frozenset({263})) -> HfTokenizer:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(written), "utf-8")
    return HfTokenizer(path, ends)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> HfTokenizer:
    return load(tmp_path_factory.mktemp("byte_level"), byte_level())


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> HfTokenizer:
    return load(tmp_path_factory.mktemp("sentence_piece"), sentence_piece(), frozenset({1}))


def spelled(tokenizer: HfTokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.piece(i) or b"" for i in ids)


# --- Text to ids


def test_control_tokens_are_read_where_they_are_asked_for(theirs: HfTokenizer) -> None:
    text = b"in<|end|> ing<tag>"
    assert theirs.tokenize(text, special=True) == [256, 263, *b" ", 257, 260]
    assert theirs.tokenize(text, special=False) == [256, *b"<|end|>", *b" ", 257, 260]
    assert theirs.tokenize(text, special=True)[1] == 263  # the one before has left nothing behind


def test_a_document_has_no_control_tokens_but_what_else_is_in_their_names(theirs: HfTokenizer) -> None:
    assert theirs.tokenize(b"<|color>", special=True) == [262]
    assert theirs.tokenize(b"<|color>", special=False) == [*b"<|col", 261]


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}])
def test_a_control_token_stays_out_of_documents_whatever_it_swallows(tmp_path: Path, flags: dict[str, bool]) -> None:
    written = byte_level()
    written["added_tokens"][-1] |= flags
    tokenizer = load(tmp_path, written)
    text = b"x <|end|> y"
    assert 263 in tokenizer.tokenize(text, special=True)
    assert tokenizer.tokenize(text, special=False) == [*text]


def test_sentence_piece(pieces: HfTokenizer) -> None:
    a, b = 259, 260
    assert pieces.tokenize(b"a a  b", special=False) == [a, 261, 262, b]
    assert pieces.tokenize("é\t\t\t<s>".encode(), special=False) == [
        2 + 0xC3, 2 + 0xA9, 264, 11, *(2 + byte for byte in b"<s>"),
    ]  # fmt: skip
    assert pieces.tokenize("a<s><t▁> ".encode(), special=True) == [a, 1, 263, 258]


@pytest.mark.parametrize("text", [b"\xff", "é".encode()[:1], b"a\xed\xa0\x80"])
def test_half_characters_are_not_guessed_at(theirs: HfTokenizer, text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        theirs.tokenize(text, special=False)


@given(st.text() | st.text("in g or<tag>|color end\t\r\n\0éΩ高🙂", max_size=60))
def test_tokens_spell_any_text(theirs: HfTokenizer, pieces: HfTokenizer, text: str) -> None:
    assert spelled(theirs, theirs.tokenize(text.encode(), special=False)) == text.encode()
    plain = text.replace("▁", "_")
    assert spelled(pieces, pieces.tokenize(plain.encode(), special=False)) == plain.encode()


# --- Ids to bytes


def test_pieces_of_bytes(theirs: HfTokenizer) -> None:
    assert [theirs.piece(byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert [theirs.piece(i) for i in range(256, 264)] == [b"in", b"ing", b" in", b"or", b"<tag>", b"or>", None, None]
    assert theirs.size == 301
    assert {theirs.piece(i) for i in (*range(264, 301), 301, 10**6, -1, 256 - 301)} == {None}


def test_pieces_of_sentence_piece(pieces: HfTokenizer) -> None:
    assert [pieces.piece(i) for i in (0, 1, 2, 11, 257)] == [None, None, b"\0", b"\t", b"\xff"]
    assert [pieces.piece(i) for i in range(258, 265)] == [b" ", b"a", b"b", b" a", b"  ", "<t▁>".encode(), b"\t\t"]


def test_end_tokens_write_nothing(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, byte_level(), frozenset({10, 300, 10**9}))
    assert tokenizer.tokenize(b"\nin", special=False) == [10, 256]
    assert tokenizer.piece(10) is None and tokenizer.piece(256) == b"in"


# --- Files


def edit(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda written: written.update(values)


def model(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda written: written["model"].update(values)


def word(token: Any, index: Any) -> Callable[[dict[str, Any]], object]:
    return lambda written: written["model"]["vocab"].update({token: index})


def name(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda written: written["added_tokens"].append({**added(300, "no text", True), **values})


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def nested(depth: int) -> Any:
    step: Any = GPT2
    for _ in range(depth):
        step = {"type": "Sequence", "pretokenizers": [step]}
    return step


TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
PADDING = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
BOMB = {"type": "Precompiled", "precompiled_charsmap": "/////w=="}  # it asks for 8 GiB, and the process is gone
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}

REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "normalizer": (edit(normalizer={"type": "NFC"}), "normalizer is not null, so it was not prepared by"),
    "huge table": (edit(normalizer=BOMB), "normalizer is not null"),
    "doubling": (edit(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 40}), "normalizer is not null"),
    "truncation": (edit(truncation=TRUNCATION), "truncation is not null"),
    "padding": (edit(padding=PADDING), "padding is not null"),
    "post-processor": (edit(post_processor=GPT2), "post_processor is not null"),
    "dropout": (model(dropout=0.5), "dropout is not null"),
    "prefix": (model(continuing_subword_prefix="##"), "continuing_subword_prefix is not null"),
    "suffix": (model(end_of_word_suffix="</w>"), "end_of_word_suffix is not null"),
    "other model": (edit(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}), "is not a byte-pair"),
    "no model": (edit(model=None), "is not a tokenizer, or damaged"),
    "no type": (lambda r: r["model"].pop("type"), "is not a tokenizer, or damaged"),
    "empty": (model(vocab={}), "is not a tokenizer, or damaged"),
    "vocab a list": (model(vocab=["a"]), "is not a tokenizer, or damaged"),
    "id a string": (word("x", "1"), "is not a tokenizer, or damaged"),
    "id huge": (word("x", 2**32 - 1), "has the token id 4294967295"),
    "id infinite": (word("x", 1e999), "has the token id inf"),
    "id negative": (word("x", -1), "the tokenizers library cannot read it: invalid value: integer `-1`, expected u32"),
    "id a fraction": (word("x", 1.5), "the tokenizers library cannot read it: invalid type: floating point"),
    "merges of nothing": (model(merges=[None]), "the tokenizers library cannot read it"),
    "merge of no tokens": (model(merges=["z" * 999 + " qq"]), "the tokenizers library cannot read it: Token `zzzzzz"),
    "half a character": (word("\ud800", 299), "the tokenizers library cannot read it"),
    "added elsewhere": (name(id=299), "has an added token that is not in the vocabulary"),
    "added beyond": (name(content="x y", id=2**32), "has an added token that is not in the vocabulary"),
    "added twice": (name(content="<tag>"), "has an added token that is not in the vocabulary"),
    "added a number": (lambda r: r["added_tokens"].append(3), "is not a tokenizer, or damaged"),
    "added a list": (name(content=["a"]), "is not a tokenizer, or damaged"),
    "added without flags": (lambda r: r["added_tokens"].append({"id": 300, "content": "no text"}), "cannot read it"),
    "added by the thousand": (edit(added_tokens=[added(300, "no text", True)] * 140000), "has more than 131072 added"),
    "added at length": (lambda r: (word("x" * 9999, 301)(r), name(id=301, content="x" * 9999)(r)), "of more than 1024"),
    "long pattern": (edit(pre_tokenizer=split("a|" * 10**6)), "has more than 65536 characters of settings"),
    "deep pattern": (edit(pre_tokenizer=split("(" * 9999 + ")" * 9999)), "cannot read it: Oniguruma error: parse"),
    "broken pattern": (edit(pre_tokenizer=split("(")), "cannot read it: Oniguruma error: end pattern with unmatched"),
    "deep steps": (edit(pre_tokenizer=nested(300)), "cannot read it: recursion limit exceeded"),
    "unknown step": (edit(pre_tokenizer={"type": "Nothing"}), "the tokenizers library cannot read it"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str) -> None:
    written = byte_level()
    damage(written)
    with pytest.raises(ModelError) as caught:
        load(tmp_path, written)
    told = str(caught.value)
    assert message in told and told.startswith(f"{tmp_path / 'tokenizer.json'}: ") and "\n" not in told
    assert len(told) < 400 + len(str(tmp_path)) and "; fetch " in told


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a tokenizer, or damaged"),
        (b"[]", "is not a tokenizer, or damaged"),
        (b"\xff\xfe", "is not a tokenizer, or damaged"),
        (b"[" * 10**6, "is not a tokenizer, or damaged"),
        (json.dumps(byte_level()).encode()[:-1], "is not a tokenizer, or damaged"),
        (json.dumps(byte_level()).encode("utf-16"), "the tokenizers library cannot read it"),
        (
            b'{"normalizer": %s, ' % json.dumps(BOMB).encode() + b'"normalizer": null, ',
            "is not a tokenizer, or damaged",
        ),
    ],
)
def test_damaged(tmp_path: Path, data: bytes, message: str) -> None:
    """The last one is whole, with a name twice: what Python's reader takes, the library's need not take."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data + json.dumps(byte_level()).encode()[1:] if data.endswith(b", ") else data)
    with pytest.raises(ModelError) as caught:
        HfTokenizer(path, frozenset())
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_one_beyond_all_measure(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read: No such file or directory; fetch"):
        HfTokenizer(path, frozenset())
    with path.open("wb") as stream:
        stream.truncate(2**40)  # a file of holes
    with pytest.raises(ModelError, match=r"tokenizer\.json: larger than 128 MiB"):
        HfTokenizer(path, frozenset())


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (split("(x+x+)+y"), "retry-limit-in-match over"),  # it would be tried for longer than the world lasts
        ({"type": "FixedLength", "length": 0}, "chunk size must be non-zero"),
    ],
)
def test_the_library_panics_and_the_process_goes_on(tmp_path: Path, step: dict[str, Any], reason: str) -> None:
    written = byte_level()
    written["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step, {**GPT2, "use_regex": False}]}
    tokenizer = load(tmp_path, written)
    text = "x" * 60
    with pytest.raises(ModelError) as caught:
        tokenizer.tokenize(text.encode(), special=False)
    told = str(caught.value)
    assert f"tokenizer.json: the tokenizers library fails on a text: {reason}" in told.replace(
        "Onig: Regex search error: ", ""
    )
    assert text not in told and "\n" not in told
    assert tokenizer.piece(256) == b"in"


# --- The process


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True)


def test_nothing_else_is_imported() -> None:
    code = "import bioner_edge.backends.onnx.tokenizer, sys; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(run(code).stdout.split())
    assert "tokenizers" in loaded
    assert loaded & {"torch", "transformers", "llama_cpp", "gguf", "onnx", "onnxruntime", "huggingface_hub"} == set()


def test_a_fork_prints_nothing(tmp_path: Path) -> None:
    load(tmp_path, byte_level())
    code = """
import os, sys
from pathlib import Path
from bioner_edge.backends.onnx.tokenizer import HfTokenizer
tokenizer = HfTokenizer(Path(sys.argv[1]), frozenset())
before = tokenizer.tokenize(b"in<tag> ing" * 999, False)
child = os.fork()
if not child:
    os._exit(tokenizer.tokenize(b"in<tag> ing" * 999, False) != before)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run(code, str(tmp_path / "tokenizer.json"))
    assert (done.stdout, done.stderr) == ("0\n", "")
