"""The tokenizer that is written for onnxruntime: the ids and pieces of llama.cpp, and the ids of the original."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from unicodedata import ucd_3_2_0

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer as Theirs
from tokenizers import pre_tokenizers

from bioner_edge.backends.byte_level import BYTES
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.onnx.tokenizer import HfTokenizer
from bioner_edge.convert.onnx.tokenizer import runtime, write
from bioner_edge.convert.vocabulary import Tokenizer, read, reference, specials, tokenizer_json
from bioner_edge.convert.vocabulary.llama_vocabulary import open_vocabulary
from bioner_edge.convert.vocabulary.trim import trim_vocabulary
from bioner_edge.errors import ModelError


def beside(name: str) -> ModuleType:
    """Another file of tests, for the tokenizers that it makes."""
    path = Path(__file__).parents[1] / "vocabulary" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_lent", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made, trims = beside("test_tokenizer"), beside("test_trim")
text, train_model = made.text, made.train_model  # fixtures
HARD, SPACE = made.HARD, made.SPACE
NAMES = ("</s> <unk><|end|><|im_end|> [PAD999]<0x0A>", "<s>Ġ ĊÃ © <tag")
LINES = (*HARD, "a" * 999, " " * 300, "\n" * 99, *NAMES)


def assert_equal(folder: Path, size: int, lines: Sequence[str]) -> dict[str, Any]:
    """Both back ends make the same of the lines, and it is what the original makes; gives what was written."""
    tokenizer = read(folder, size)
    path = folder / "prepared.json"
    write(folder, tokenizer, path)
    told = runtime(tokenizer, 512, "shared")
    theirs, expected = HfTokenizer(path, frozenset(told["end_tokens"])), reference(folder)
    with open_vocabulary(tokenizer) as model:
        assert frozenset(told["end_tokens"]) == model.end_tokens >= set(tokenizer.ends)
        assert [theirs.piece(token) for token in range(size)] == [model.piece(token) for token in range(size)]
        for line in (*lines, *specials(folder)):
            for special in (False, True):
                ids = theirs.tokenize(line.encode(), special)
                assert ids == model.tokenize(line.encode(), special), line
            if line not in NAMES and SPACE not in line:  # llama.cpp knows more names, and ▁ as a blank alone
                assert ids == expected(line), line
    for line in lines:
        if "<" not in line and SPACE not in line:
            assert spelled(theirs, line) == line.encode()
    written: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return written


def spelled(theirs: HfTokenizer, line: str) -> bytes:
    return b"".join(theirs.piece(token) or b"" for token in theirs.tokenize(line.encode(), special=False))


# --- The same ids


@pytest.mark.parametrize("name", made.SPLITS)
def test_byte_level(tmp_path: Path, name: str) -> None:
    folder = made.byte_level(tmp_path, *made.SPLITS[name], made.spread(HARD))
    assert_equal(folder, made.rows(folder) + 3, LINES)


@pytest.mark.parametrize("name", sorted({name.split(",")[0] for name in made.SPLITS}))
def test_byte_level_on_text(tmp_path: Path, text: list[str], name: str) -> None:
    folder = made.byte_level(tmp_path, *made.SPLITS[name], made.spread(text[:60]))
    assert_equal(folder, made.rows(folder), text)


@pytest.mark.parametrize("closed", [True, False], ids=["all merges", "trained merges"])
@pytest.mark.parametrize("style", made.STYLES)
def test_sentence_piece(tmp_path: Path, style: str, closed: bool) -> None:
    folder = made.sentence_piece(tmp_path, style, made.spread(HARD), closed=closed)
    assert_equal(folder, made.rows(folder) + 3, LINES)


@pytest.mark.parametrize("style", made.STYLES)
def test_sentence_piece_on_text(tmp_path: Path, text: list[str], style: str) -> None:
    folder = made.sentence_piece(tmp_path, style, made.spread(text[:60]), closed=False)
    assert_equal(folder, made.rows(folder), text)


@pytest.mark.parametrize("dummy", [True, False])
def test_tokenizer_model(tmp_path: Path, train_model: Callable[..., Path], dummy: bool) -> None:
    options: dict[str, Any] = {"add_dummy_prefix": dummy, "user_defined_symbols": ["<b>", SPACE * 3]}
    folder = train_model(tmp_path, made.spread(HARD), **options)
    more = {"1000": {"content": "<|user|>", "special": True}, "1003": {"content": "<tag>", "special": False}}
    made.change(folder / "tokenizer_config.json", added_tokens_decoder=more)  # between them are rows without tokens
    assert_equal(folder, 1010, [*LINES, "a <tag>b<b>   c<|user|> d"])


def test_tokenizer_model_on_text(tmp_path: Path, train_model: Callable[..., Path], text: list[str]) -> None:
    assert_equal(train_model(tmp_path, text[:300], vocab_size=2000), 2048, [*LINES, *text])


@pytest.mark.parametrize("kind", trims.KINDS)
def test_trimmed(tmp_path: Path, kind: str) -> None:
    source = trims.save(tmp_path / "model", trims.KINDS[kind]())
    kept = trim_vocabulary(source, trims.TRAINED[1:3], tmp_path / "out")
    assert_equal(tmp_path / "out", len(kept), [*trims.TRAINED, *trims.OTHER, *LINES])


ODD: dict[str, dict[str, Any]] = {
    "merges that no scores can say": made.by_hand(
        ["a", "b", SPACE, "\n", "ab", "ba", f"a{SPACE}"], [("a", SPACE), ("a", "b")]
    ),
    "added tokens of blanks": made.by_hand(
        ["a", *(SPACE * n for n in range(1, 8))], [(SPACE * n, SPACE) for n in range(1, 7)]
    ),
    "a tab of two texts": made.by_hand(["a", SPACE, "\t\t", "b"], []),
    "merges like a comment": made.by_hand(
        ["#", "v", "#v", "#ve", "e", "#version", "rsion", "1", SPACE, "#version1"],
        [("#", "v"), ("#v", "e"), ("#ve", "rsion"), ("#version", "1")],
    ),
}
ODD["added tokens of blanks"]["added_tokens"] += [
    {**ODD["added tokens of blanks"]["added_tokens"][0], "id": 257 + n, "content": SPACE * n, "special": False}
    for n in range(2, 8)
]
ODD["a tab of two texts"]["model"]["vocab"]["\t"] = 10
ODD["a tab of two texts"]["model"]["merges"] = [["\t", "\t"]]


@pytest.mark.parametrize("name", ODD)
def test_odd_ones(tmp_path: Path, name: str) -> None:
    folder = made.save(tmp_path, ODD[name])
    lines = ["baab bba a b", "\nba\n\nba\r\nab a\n", "a    a   ", "\t\ta\t\t\tb\t", "#version1 #versio", *LINES]
    written = assert_equal(folder, made.rows(folder), lines)
    as_lists = isinstance(written["model"]["merges"][0], list)
    assert as_lists == (name == "merges like a comment")


# Letters that Unicode 16 brought are none yet for llama.cpp, which then splits text elsewhere; these are older.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn")).filter(lambda c: ucd_3_2_0.category(c) != "Cn")


@given(st.text(CHARACTERS) | st.text("αé \n<tag>|end'sT1高🙂\u0301\u00a0", max_size=40))
@settings(max_examples=60)
def test_any_text(both: list[tuple[HfTokenizer, LlamaCpp, Callable[[str], list[int]]]], line: str) -> None:
    for theirs, model, expected in both:
        for special in (False, True):
            ids = theirs.tokenize(line.encode(), special)
            assert ids == model.tokenize(line.encode(), special)
        assert ids == expected(line)
        if SPACE not in line:
            assert spelled(theirs, line) == line.encode()


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[HfTokenizer, LlamaCpp, Callable[[str], list[int]]]]]:
    """Ours, llama.cpp's and the original, of three tokenizers."""
    root = tmp_path_factory.mktemp("both")
    folders = [
        made.byte_level(root / "qwen2", *made.SPLITS["qwen2"], made.spread(HARD)),
        made.byte_level(root / "llama", *made.SPLITS["llama-bpe"], made.spread(HARD)),
        made.sentence_piece(root / "phi3", "Llama 2, Phi-3", made.spread(HARD), closed=False),
    ]
    found = []
    with ExitStack() as stack:
        for folder in folders:
            tokenizer = read(folder, made.rows(folder))
            write(folder, tokenizer, folder / "prepared.json")
            model = stack.enter_context(open_vocabulary(tokenizer))
            found.append((HfTokenizer(folder / "prepared.json", model.end_tokens), model, reference(folder)))
        yield found


def test_text_that_a_normalizer_would_change(tmp_path: Path) -> None:
    """Qwen's tokenizer composes letters first; what is fed must spell the document, as with llama.cpp."""
    folder = made.byte_level(tmp_path, *made.SPLITS["qwen2"], made.spread(HARD))
    made.change(folder / "tokenizer.json", normalizer={"type": "NFC"})
    assert_equal(folder, made.rows(folder), LINES)
    decomposed = "cafe\u0301 \u1e9b\u0323"
    original = Theirs.from_file(str(folder / "tokenizer.json"))
    theirs = HfTokenizer(folder / "prepared.json", frozenset())
    assert original.decode(original.encode(decomposed).ids) != decomposed
    assert spelled(theirs, decomposed) == decomposed.encode()


def test_no_blank_before_a_text(tmp_path: Path) -> None:
    """A ByteLevel step that would put one there can be converted by naming llama.cpp's way to split."""
    folder = made.byte_level(tmp_path, *made.SPLITS["gpt-2"], made.spread(HARD))
    tokenizer = read(folder, made.rows(folder), "gpt-2")
    step = json.loads((folder / "tokenizer.json").read_text("utf-8"))["pre_tokenizer"]
    made.change(folder / "tokenizer.json", pre_tokenizer={**step, "add_prefix_space": True})
    write(folder, tokenizer, tmp_path / "prepared.json")
    theirs, expected = HfTokenizer(tmp_path / "prepared.json", frozenset()), reference(folder)
    with open_vocabulary(tokenizer) as model:
        for line in HARD:
            assert theirs.tokenize(line.encode(), False) == model.tokenize(line.encode(), False) == expected(line)


# --- Roles


def roles(tmp_path: Path, *names: tuple[str, bool], **more: Any) -> tuple[Path, Tokenizer]:
    """A byte-level tokenizer with more added tokens: (name, whether it is special)."""
    folder = made.byte_level(tmp_path, *made.SPLITS["qwen2"], ["ab"])
    written = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    like, at = written["added_tokens"][0], made.rows(folder)
    rows = [{**like, "id": at + n, "content": name, "special": special} for n, (name, special) in enumerate(names)]
    made.change(folder / "tokenizer.json", added_tokens=[*written["added_tokens"], *rows])
    made.change(folder / "tokenizer_config.json", **more)
    return folder, read(folder, made.rows(folder))


def test_ends_and_control_tokens_are_those_of_llama_cpp(tmp_path: Path) -> None:
    """Qwen 2.5 has names for code that are not special; llama.cpp takes them for control tokens, some for ends."""
    folder, tokenizer = roles(tmp_path, ("<|fim_prefix|>", False), ("<|fim_pad|>", False), ("<|im_end|>", False))
    before, pad, end = range(len(tokenizer.tokens) - 3, len(tokenizer.tokens))
    told = runtime(tokenizer, 512, "grown")
    assert told["end_tokens"] == [*tokenizer.ends, pad, end]
    written = assert_equal(folder, len(tokenizer.tokens), ["<|fim_prefix|>a<|fim_pad|> b<|im_end|>"])
    marked = {token["id"]: token["special"] for token in written["added_tokens"]}
    assert marked[before] and marked[pad] and marked[end] and not marked[before - 1]


def test_an_added_word_inside_the_name_of_a_control_token(tmp_path: Path) -> None:
    """It is found there in documents, where the name is only text, and not where the name is read as the token."""
    folder, tokenizer = roles(tmp_path, ("<|color|>", True), ("or", False), ("<|co", False))
    named, inside, _ = range(len(tokenizer.tokens) - 3, len(tokenizer.tokens))
    assert_equal(folder, len(tokenizer.tokens), ["color <|color|>", "<|color"])
    theirs = HfTokenizer(folder / "prepared.json", frozenset())
    assert theirs.tokenize(b"<|color|>", special=True) == [named]
    assert inside in theirs.tokenize(b"<|color|>", special=False)


def test_a_byte_that_has_no_token_is_left_out(tmp_path: Path) -> None:
    """Granite has no bytes for planes without characters; llama.cpp knows no token for what is unknown."""
    folder, _ = roles(tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    model["vocab"]["no byte"] = model["vocab"].pop("ñ")  # 0xF1
    made.change(folder / "tokenizer.json", model={**model, "unk_token": "<|pad|>"})
    tokenizer = read(folder, made.rows(folder))
    write(folder, tokenizer, folder / "prepared.json")
    theirs, text = HfTokenizer(folder / "prepared.json", frozenset()), "a\U00040000b".encode()
    with open_vocabulary(tokenizer) as loaded:
        assert theirs.tokenize(text, False) == loaded.tokenize(text, False)


def test_a_token_of_text_may_end_an_answer(tmp_path: Path) -> None:
    folder, tokenizer = roles(tmp_path)
    newline = tokenizer.tokens.index("Ċ")
    made.change(folder / "generation_config.json", eos_token_id=[tokenizer.ends[0], newline])
    written = assert_equal(folder, len(tokenizer.tokens), [])
    assert newline not in {token["id"] for token in written["added_tokens"]}
    theirs = HfTokenizer(folder / "prepared.json", frozenset({newline}))
    assert theirs.tokenize(b"a\n", special=True)[1] == newline and theirs.piece(newline) is None


@pytest.mark.parametrize("add_bos", [True, False])
def test_what_the_back_end_is_told(tmp_path: Path, add_bos: bool) -> None:
    settings = {"bos_token": "<s>", "add_bos_token": add_bos, "chat_template": "{{ a }}"}
    _, tokenizer = roles(tmp_path, ("<s>", True), **settings)
    bos = len(tokenizer.tokens) - 1
    assert runtime(tokenizer, 1024, "shared") == {
        "context": 1024,
        "bos": bos if add_bos else None,
        "end_tokens": [0],
        "bos_token": "<s>",
        "eos_token": "<|end|>",
        "chat_template": "{{ a }}",
        "cache": "shared",
    }


def test_the_template_writes_the_blanks(tmp_path: Path) -> None:
    folder = made.sentence_piece(tmp_path, "Llama 2, Phi-3", made.spread(HARD), closed=True)
    made.change(folder / "tokenizer_config.json", chat_template=made.INST)
    tokenizer = read(folder, made.rows(folder))
    assert runtime(tokenizer, 512, "shared")["chat_template"] == tokenizer.prompt_template != made.INST


# --- The file


def test_what_is_written(tmp_path: Path) -> None:
    source = trims.save(tmp_path / "model", trims.byte_level())  # with padding, a normalizer and a post-processor
    tokenizer = read(source, tokenizer_json.load(source / "tokenizer.json").size)
    write(source, tokenizer, tmp_path / "once.json")
    write(source, tokenizer, tmp_path / "twice.json")
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "twice.json").read_bytes()
    written = json.loads((tmp_path / "once.json").read_text("utf-8"))
    nothing = ("truncation", "padding", "normalizer", "post_processor")
    assert [written[name] for name in nothing] == [None] * 4 and written["version"] == "1.0"
    assert list(written["model"]["vocab"].values()) == list(range(len(tokenizer.tokens)))
    theirs = Theirs.from_file(str(tmp_path / "once.json"))
    for line in HARD:
        assert theirs.decode(theirs.encode(line).ids) == line


def test_half_a_character(tmp_path: Path) -> None:
    folder, tokenizer = roles(tmp_path)
    half = {"type": "Split", "pattern": {"String": "\ud83d"}, "behavior": "Isolated", "invert": False}
    made.change(folder / "tokenizer.json", pre_tokenizer=half)
    with pytest.raises(ModelError, match=r"tokenizer\.json: its text splitting contains a lone surrogate; save"):
        write(folder, tokenizer, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_the_table_of_bytes_is_the_library_s() -> None:
    assert set(BYTES.values()) == set(pre_tokenizers.ByteLevel.alphabet()) and len(BYTES) == 256
    told = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("é\n")
    assert told[0][0] == "".join(BYTES[byte] for byte in "é\n".encode())


# --- tokenizer.model: scores


Piece = tuple[str, float, int]


def by_hand(folder: Path, pieces: Sequence[tuple[str, float]]) -> Path:
    """A tokenizer.model with these pieces beside <unk>, </s> and the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[Piece] = [("<unk>", 0.0, 2), ("</s>", 0.0, 3), *((f"<0x{b:02X}>", 0.0, 6) for b in range(256))]
    listed += [(text, score, 1) for text, score in pieces]
    data = b""
    for content, score, kind in listed:
        inside = field(1, content.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind])
        data += field(1, inside)
    training = bytes([3 << 3, 2]) + b"\x98\x02\x01"  # model_type BPE, byte_fallback
    training += b"\xc0\x02\x00" + b"\xc8\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\xd0\x02\x01"
    training += b"\xd8\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # unk_id 0, no bos_id, eos_id 1, no pad_id
    normalizing = field(1, b"identity") + bytes([3 << 3, 0, 4 << 3, 0, 5 << 3, 1])
    (folder / "tokenizer.model").write_bytes(data + field(2, training) + field(3, normalizing))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return folder


def field(number: int, content: bytes) -> bytes:
    size, length = bytearray(), len(content)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


@given(
    st.lists(st.tuples(st.text(f"ab{SPACE}", min_size=2, max_size=4), st.integers(-3, 0)), min_size=1, max_size=8),
    st.lists(st.text("ab ", max_size=30), min_size=4, max_size=4),
)
@settings(max_examples=60)
def test_any_scores(tmp_path_factory: pytest.TempPathFactory, chosen: list[tuple[str, int]], lines: list[str]) -> None:
    """Scores in any order, many of them tied: the ids of SentencePiece, or a refusal."""
    pytest.importorskip("sentencepiece")
    pieces = {"a": -9.0, "b": -9.0, SPACE: -9.0} | {text: float(score) for text, score in chosen}
    folder = by_hand(tmp_path_factory.mktemp("scores"), list(pieces.items()))
    tokenizer = read(folder, 258 + len(pieces))
    try:
        write(folder, tokenizer, folder / "prepared.json")
    except ModelError as error:
        assert "have the score" in str(error) and len(set(dict(chosen).values())) < len(dict(chosen))
        assume(False)
    theirs, expected = HfTokenizer(folder / "prepared.json", frozenset()), reference(folder)
    for line in (*lines, "abababab", "aabbaabb", "a b a b bb aa ab"):
        assert theirs.tokenize(line.encode(), False) == expected(line), line


TIED: dict[str, tuple[dict[str, float], bool]] = {
    "apart": ({"ab": 0, "cd": 0}, True),
    "the left one first": ({"bc": 0, "ab": 0, "abc": -1}, True),
    "three in a row": ({"cd": 0, "ab": 0, "bc": 0}, True),
    "twice itself": ({"ba": 0, "aa": 0, "ac": 0}, True),
    "far below all others": ({"ab": -1e30, "cd": -1e30}, True),
    "a whole before its part": ({"ab": -1, "abc": 0}, True),
    "never made": ({"abcd": 0, "dcba": 0, "ab": -1}, True),
    "each to the left of the other": ({"ab": 0, "ba": 0}, False),
    "round about": ({"ab": 0, "bc": 0, "ca": 0}, False),
    "one goes on": ({"ab": -1, "cd": -1, "abc": 0}, False),
    "one goes on, tied": ({"ab": 0, "cd": 0, "abc": 0}, False),
}


@pytest.mark.parametrize(("pieces", "ordered"), TIED.values(), ids=TIED.keys())
def test_ties(tmp_path: Path, pieces: dict[str, float], ordered: bool) -> None:
    pytest.importorskip("sentencepiece")
    folder = by_hand(tmp_path, [*((c, -9.0) for c in ("a", "b", "c", "d", SPACE)), *pieces.items()])
    tokenizer = read(folder, 263 + len(pieces))
    if not ordered:
        with pytest.raises(ModelError, match=r"tokenizer\.model: \d pieces have the score .*; convert to GGUF"):
            write(folder, tokenizer, tmp_path / "prepared.json")
        return
    assert_equal(folder, 263 + len(pieces), ["abcd bcd aac baac aaa dcba abcabcd cabcd", *LINES])


def test_characters_that_are_no_pieces(tmp_path: Path) -> None:
    """SentencePiece joins them all the same; a tab can stand for its byte, others cannot."""
    pytest.importorskip("sentencepiece")
    folder = by_hand(tmp_path / "tab", [("\t\t", 0.0), ("\t\t\t", -1.0), ("a\t", -2.0), ("a", -9.0), (SPACE, -9.0)])
    assert_equal(folder, 263, ["\t", "a\t\t\t\ta\ta", *LINES])
    folder = by_hand(tmp_path / "letter", [("éa", 0.0), ("a", -9.0), (SPACE, -9.0)])
    with pytest.raises(
        ModelError, match=r"tokenizer\.model: 'é' is part of pieces but is not a piece itself; .* to GGUF"
    ):
        write(folder, read(folder, 261), folder / "prepared.json")
