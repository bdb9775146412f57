"""What a GGUF is told of a tokenizer, and that llama.cpp then makes the same ids of a text as Hugging Face does."""

from __future__ import annotations

import json
import lzma
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter, TokenType
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

from tokenizers import Regex, decoders, models, trainers
from tokenizers import Tokenizer as Theirs
from tokenizers import pre_tokenizers as p

from bioner_edge import prompts
from bioner_edge.backends.vocab_only import VocabOnly
from bioner_edge.convert.verification.samples import LINES
from bioner_edge.convert.vocabulary import PRE_TOKENIZERS, Tokenizer, read, reference, specials
from bioner_edge.convert.vocabulary.bpe import scores
from bioner_edge.convert.vocabulary.llama_vocabulary import open_vocabulary
from bioner_edge.convert.vocabulary.pre_tokenizers import KNOWN
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.formats.contract import TEXT

ROOT = Path(__file__).parents[3]
ROWS = 410
HARD = (
    "Naloxone reverses the antihypertensive effect of clonidine in rats; 1,25-(OH)2D3 didn't, I'LL say.",
    "TNF-α, IFN-γ, κ- and μ-opioid agonists, Ωμέγα, Κλονιδίνη: αΒΓδ",
    "患者は高血圧と２型糖尿病を有し、メトホルミン500mgを1日2回服用していた。",
    "🙂 👩🏽\u200d⚕️ 🧬💊 café cafe\u0301 x̂ Ménière \U000e0041 \U0010fffd",
    "    four,  two,\ta tab \t\t and the end   ",
    "lines\nof\r\ntext\r\n\r\n\n\n   indented \n \n\r and so on\n",
    "1234567890 12 345 6789 3.14159 1e-10 ½ ² Ⅳ １２３ ١٢٣ 10,000.50",
    "\u00a0non-breaking\u2009thin\u3000wide\u200bzero\u2028line\x0b\x0c\x1c\x85next",
    "<Chemical>x</Chemical> @@y## [\"a\", \"b\"] {\"k\": [[0, 8]]} A\\B __init__ ~~~ ---- ....!!! // /\n",
    "हिन्दी தமிழ் ไทย עִבְרִית 한국어 Ǆǅǆ ªº ʰa 'ſ it'ſ",
    "",
    " ",
    "\n",
)  # fmt: skip
SPACE = "▁"
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}
DECODING = [
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
SEQUENCE = {"type": "Sequence", "decoders": DECODING}
STRIPPED = {"type": "Sequence", "decoders": [*DECODING, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def metaspace(scheme: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}


# How the families' tokenizer.json writes a blank as ▁.
STYLES: dict[str, dict[str, Any]] = {
    "Llama 2, Phi-3": {
        "normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]},
        "pre_tokenizer": None,
        "decoder": STRIPPED,
    },
    "Mistral 0.3": {"normalizer": None, "pre_tokenizer": metaspace("first", False), "decoder": STRIPPED},
    "words apart": {"normalizer": None, "pre_tokenizer": metaspace("always", True), "decoder": STRIPPED},
    "Gemma": {
        "normalizer": REPLACE,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "decoder": SEQUENCE,
    },
}


@pytest.fixture(scope="session")
def text() -> list[str]:
    """A thousand lines of biomedical text."""
    folder = Path(os.environ.get("BIONER_TEXT") or ROOT.parent / "shared" / "text")
    if not (folder / "part-0.jsonl.xz").is_file():
        pytest.skip(f"no text: {folder} has no part-0.jsonl.xz; set $BIONER_TEXT")
    with lzma.open(folder / "part-0.jsonl.xz", "rt", encoding="utf-8") as stream:
        documents = [json.loads(line)["text"] for line in islice(stream, 500)]
    return [piece for d in documents for piece in (d[:400], d[400:800])][:1000]


def spread(lines: tuple[str, ...] | list[str]) -> list[str]:
    """Lines to train on, for merges over every border at which a text may be split."""
    return [line[at : at + 40] for line in lines for at in range(0, len(line), 40)] * 4


def save(folder: Path, tokenizer: dict[str, Any], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", **settings}), "utf-8")
    return folder


def byte_level(folder: Path, pre: Any, ignore_merges: bool, lines: list[str]) -> Path:
    """A byte-level BPE whose merges reach over all borders, so that every split shows, with whole words beside them."""
    bytes_only = p.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe = Theirs(models.BPE(ignore_merges=ignore_merges))
    bpe.pre_tokenizer = p.Sequence([p.Split(Regex(r"[\s\S]{1,12}"), "isolated"), bytes_only])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2500,
        initial_alphabet=p.ByteLevel.alphabet(),
        special_tokens=["<|end|>", "<|pad|>"],
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    bpe.pre_tokenizer = pre
    record = json.loads(bpe.to_str())
    vocabulary = record["model"]["vocab"]
    for word in ("Naloxone", "Ġreverses", "Ġantihypertensive"):  # no merge makes them
        vocabulary.setdefault(word, len(vocabulary))
    like = record["added_tokens"][0]
    record["added_tokens"].append({**like, "id": len(vocabulary), "content": "<tag>", "special": False})
    return save(folder, record)


def sentence_piece(folder: Path, style: str, lines: list[str], *, closed: bool) -> Path:
    """A BPE with ▁ and byte tokens; with all merges of each token, or with those alone that training found."""
    escaped = [line.replace(" ", SPACE) for line in lines]
    bpe = Theirs(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.pre_tokenizer = p.Sequence([p.Split(SPACE, "merged_with_next"), p.Split(Regex(r"\n+|[^\n]{1,9}"), "isolated")])
    special = ["<unk>", "<s>", "<|end|>", "<|user|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe.train_from_iterator(escaped, trainers.BpeTrainer(vocab_size=1200, special_tokens=special, show_progress=False))
    record = {**json.loads(bpe.to_str()), **STYLES[style]}
    model = record["model"]
    if closed:
        model["merges"] = [
            [token[:at], token[at:]]
            for token in model["vocab"]
            for at in range(1, len(token))
            if {token[:at], token[at:]} <= model["vocab"].keys() and token not in special
        ]
    record["added_tokens"] = [t for t in record["added_tokens"] if not t["content"].startswith("<0x")]
    user = record["added_tokens"][-1]
    record["added_tokens"].append({**user, "id": len(model["vocab"]), "content": "<tag>", "special": False})
    return save(folder, record, bos_token="<s>", unk_token="<unk>")


def rows(folder: Path) -> int:
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    return 1 + max([*record["model"]["vocab"].values(), *(token["id"] for token in record["added_tokens"])])


def assert_equal_ids(folder: Path, lines: list[str], size: int | None = None, pre: str | None = None) -> Tokenizer:
    """llama.cpp makes Hugging Face's ids of the lines, and they spell them."""
    tokenizer = read(folder, size or rows(folder), pre)
    expected = reference(folder)
    with open_vocabulary(tokenizer) as model:
        for line in [*lines, *specials(folder)]:
            assert model.tokenize(line.encode(), special=True) == expected(line), line
        for line in lines:
            assert (
                b"".join(model.piece(i) or b"" for i in model.tokenize(line.encode(), special=False)) == line.encode()
            )
    return tokenizer


def splits() -> dict[str, tuple[Any, bool]]:
    """llama.cpp's name -> the pre-tokenizer that the table lists for it, by the library's own constructors."""
    plain, digits = p.ByteLevel(add_prefix_space=False), p.Digits(individual_digits=True)
    bytes_only = p.ByteLevel(add_prefix_space=False, use_regex=False)
    made: dict[str, tuple[Any, bool]] = {}
    for (steps, ignore_merges), name in PRE_TOKENIZERS.items():
        if steps[-1] == "ByteLevel":
            made[name] = p.Sequence([p.Split(Regex(steps[0]), "isolated"), bytes_only]), ignore_merges
            made[f"{name}, removed"] = (
                p.Sequence([p.Split(Regex(steps[0]), "removed", True), bytes_only]),
                ignore_merges,
            )
        else:
            made[name] = p.Sequence([digits, plain]) if len(steps) == 2 else plain, ignore_merges
    return made


SPLITS = splits()


# --- The same ids


@pytest.mark.parametrize("name", SPLITS)
def test_pre_tokenizers(tmp_path: Path, name: str) -> None:
    folder = byte_level(tmp_path, *SPLITS[name], spread(HARD))
    assert assert_equal_ids(folder, list(HARD)).pre == name.split(",")[0]


@pytest.mark.parametrize("name", SPLITS)
def test_pre_tokenizers_on_text(tmp_path: Path, text: list[str], name: str) -> None:
    assert_equal_ids(byte_level(tmp_path, *SPLITS[name], spread([*HARD, *text[:200]])), [*HARD, *text])


@pytest.mark.parametrize("closed", [True, False], ids=["all merges", "trained merges"])
@pytest.mark.parametrize("style", STYLES)
def test_sentence_piece(tmp_path: Path, style: str, closed: bool) -> None:
    tokenizer = assert_equal_ids(sentence_piece(tmp_path, style, spread(HARD), closed=closed), list(HARD))
    assert (tokenizer.model, tokenizer.pre) == ("llama", "default")


@pytest.mark.parametrize("closed", [True, False], ids=["all merges", "trained merges"])
@pytest.mark.parametrize("style", STYLES)
def test_sentence_piece_on_text(tmp_path: Path, text: list[str], style: str, closed: bool) -> None:
    folder = sentence_piece(tmp_path, style, spread([*HARD, *text[:200]]), closed=closed)
    assert_equal_ids(folder, [*HARD, *text])


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=25), st.text("ab ", max_size=40)
)
@settings(max_examples=60)
def test_any_merges(tmp_path_factory: pytest.TempPathFactory, chosen: list[tuple[int, int]], line: str) -> None:
    """Merges in any order, some of them never reached, some tokens with several."""
    symbols, merges = ["a", "b", SPACE], dict[tuple[str, str], None]()
    for first, second in chosen:
        pair = symbols[first % len(symbols)], symbols[second % len(symbols)]
        if len("".join(pair)) <= 12:
            merges[pair] = None
            symbols.append("".join(pair))
    assert_equal_ids(save(tmp_path_factory.mktemp("any"), by_hand(symbols, list(merges))), [line, "aaaabbbb  aa bb ab"])


def by_hand(symbols: list[str], merges: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    tokens = dict.fromkeys(["<|end|>", *(f"<0x{byte:02X}>" for byte in range(256)), *symbols])
    added = {"id": 0, "content": "<|end|>", "special": True, "normalized": False}
    return {
        "added_tokens": [{**added, "lstrip": False, "rstrip": False, "single_word": False}],
        **STYLES["Gemma"],
        "post_processor": None,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
            **more,
        },
    }


def test_merges_that_no_scores_can_say(tmp_path: Path) -> None:
    """By score b and a would be joined, because ba is a token."""
    record = by_hand(["a", "b", SPACE, "\n", "ab", "ba", f"a{SPACE}"], [("a", SPACE), ("a", "b")])
    tokenizer = assert_equal_ids(save(tmp_path, record), ["baab bba a b", "\nba\n\nba\r\nab a\n", *HARD])
    assert (tokenizer.model, tokenizer.pre) == ("gpt2", "sarvam-moe")


def test_scores_are_given_where_they_say_the_same_as_merges() -> None:
    chain = [("a", "b"), ("ab", "c")]
    assert scores(chain, ["a", "ab", "abc", "d"]) == [-3.0, -1.0, -2.0, -3.0]
    assert scores(chain, ["bc"]) is None  # by score b and c would be joined
    assert scores([*chain, ("b", "c")], ["bc", "abc"]) == [-3.0, -2.0]
    assert scores([("b", "c"), *chain], ["ab", "bc", "abc"]) is None  # a and bc are left, which spell a token


def test_tab_that_is_a_byte_and_a_character(tmp_path: Path) -> None:
    record = by_hand(["a", SPACE, "\n", "\n\n", "ab", "b"], [("\n", "\n"), ("a", "b")])
    record["model"]["vocab"]["\t"] = record["model"]["vocab"]["<0x09>"]
    tokenizer = assert_equal_ids(save(tmp_path, record), ["a\tb \t\n\n\tab"])
    assert tokenizer.types[tokenizer.tokens.index("<0x09>")] == TokenType.BYTE
    del record["model"]["vocab"]["<0x09>"]  # as transformers now writes Gemma's
    assert "\t" in assert_equal_ids(save(tmp_path, record), ["a\tb \t\n\n\tab"]).tokens


def test_added_tokens_of_blanks_stay_blanks(tmp_path: Path) -> None:
    runs = [SPACE * n for n in range(1, 8)]
    record = by_hand(["a", *runs], [(SPACE * n, SPACE) for n in range(1, 7)])
    like = record["added_tokens"][0]
    vocabulary = record["model"]["vocab"]
    record["added_tokens"] += [{**like, "id": vocabulary[run], "content": run, "special": False} for run in runs[1:]]
    folder = save(tmp_path, record)
    expected = reference(folder)
    with open_vocabulary(read(folder, rows(folder))) as model:
        for line in ("a    a", "   a ", " " * 20):
            ids = model.tokenize(line.encode(), special=False)
            assert ids == expected(line) and b"".join(model.piece(i) or b"" for i in ids) == line.encode()


def test_bytes_that_no_text_has_may_be_missing(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, SPLITS["smollm"][0], False, spread(HARD))
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for character in "ÀÁñòõö÷øùúûüýþÿ":  # as in StarCoder and Granite; in byte-level BPE they stand for these bytes
        record["model"]["vocab"][f"no{character}"] = record["model"]["vocab"].pop(character)
    tokenizer = assert_equal_ids(save(folder, record), list(HARD))
    assert tokenizer.types[tokenizer.tokens.index("noÀ")] == TokenType.NORMAL


def test_every_known_name_is_known_to_llama_cpp(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, SPLITS["gpt-2"][0], False, ["ab"])
    made = read(folder, rows(folder))
    word = made.tokens.index("Naloxone")
    for name, ignoring in [*KNOWN.items(), ("no-such-name", False)]:
        tokenizer = Tokenizer("gpt2", name, made.tokens, made.types, made.merges, ends=(0,))
        if name not in KNOWN:
            with pytest.raises(ModelError), open_vocabulary(tokenizer):
                pass
            continue
        with open_vocabulary(tokenizer) as model:
            assert (model.tokenize(b"Naloxone", special=False) == [word]) == ignoring, name


def test_pre_tokenizer_by_name(tmp_path: Path) -> None:
    name, *_ = (n for n in KNOWN if n == "bailingmoe")
    regex = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    split = p.Sequence([p.Split(Regex(regex), "isolated"), p.ByteLevel(add_prefix_space=False, use_regex=False)])
    folder = byte_level(tmp_path, split, False, spread(HARD))
    with pytest.raises(ModelError, match=r"unknown pre-tokenizer .*\+\+.* or name llama.cpp's equivalent with --pre"):
        read(folder, rows(folder))
    assert assert_equal_ids(folder, list(HARD), pre=name).pre == name
    with pytest.raises(UsageError, match=r"unknown pre-tokenizer 'nothing'; known: a\.x-4\.0, afmoe, bailingmoe"):
        read(folder, rows(folder), "nothing")
    with pytest.raises(ModelError, match=r"ignore_merges is False, but True in llama.cpp's 'tekken'"):
        read(folder, rows(folder), "tekken")
    with pytest.raises(UsageError, match="--pre qwen2 is for byte-level BPE"):
        read(sentence_piece(tmp_path / "spm", "Gemma", ["ab"], closed=True), 9999, "qwen2")


# --- tokenizer.model


@pytest.fixture(scope="module")
def train_model() -> Callable[..., Path]:
    """A function (folder, lines, **options) -> the folder of a tokenizer.model that SentencePiece trained."""
    library = pytest.importorskip("sentencepiece")

    def train(folder: Path, lines: list[str], **options: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {
            "model_type": "bpe",
            "vocab_size": 900,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "hard_vocab_limit": False,
            "minloglevel": 2,
        }
        library.SentencePieceTrainer.train(
            sentence_iterator=iter([line for line in lines if line.strip()]),
            model_prefix=str(folder / "tokenizer"),
            **{**wanted, **options},
        )
        (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
        return folder

    return train


@pytest.mark.parametrize("dummy", [True, False])
def test_tokenizer_model(tmp_path: Path, train_model: Callable[..., Path], dummy: bool) -> None:
    folder = train_model(tmp_path, spread(HARD), add_dummy_prefix=dummy, user_defined_symbols=["<b>", "▁▁▁"])
    tokenizer = assert_equal_ids(folder, list(HARD), 1000)
    assert (tokenizer.model, tokenizer.bos, tokenizer.ends, tokenizer.unk) == ("llama", 1, (2,), 0)
    assert tokenizer.add_bos and len(tokenizer.tokens) == 1000
    kinds = dict(zip(tokenizer.tokens, tokenizer.types, strict=True))
    assert kinds["   "] == kinds["<b>"] == TokenType.USER_DEFINED and kinds["[PAD999]"] == TokenType.UNUSED


def test_tokenizer_model_on_text(tmp_path: Path, train_model: Callable[..., Path], text: list[str]) -> None:
    assert_equal_ids(train_model(tmp_path, text[:300], vocab_size=2000), [*HARD, *text], 2048)


def test_tokens_added_to_a_tokenizer_model(tmp_path: Path, train_model: Callable[..., Path]) -> None:
    folder = train_model(tmp_path, spread(HARD))
    added = {"950": {"content": "<|user|>", "special": True}, "951": {"content": "<tag>", "special": False}}
    change(folder / "tokenizer_config.json", added_tokens_decoder=added)
    tokenizer = assert_equal_ids(folder, ["a <tag>b<|user|> c"], 1000)
    assert tokenizer.types[950:952] == (TokenType.CONTROL, TokenType.USER_DEFINED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram"}, "a unigram model cannot be converted"),
        ({"byte_fallback": False}, "byte_fallback false cannot be converted"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces, which removes spaces from the text, cannot"),
        ({"normalization_rule_name": "nmt_nfkc"}, "a normalizer that changes characters"),
        ({"treat_whitespace_as_suffix": True}, "spaces at the end of words cannot be converted"),
        ({"control_symbols": ["in"]}, "merges spell 'in', which is not a normal token"),
    ],
)
def test_refused_tokenizer_models(
    tmp_path: Path, train_model: Callable[..., Path], options: dict[str, Any], message: str
) -> None:
    folder = train_model(tmp_path, spread(HARD), **options)
    with pytest.raises(ModelError, match=message):
        read(folder, 2000)


def test_damaged_tokenizer_model(tmp_path: Path, train_model: Callable[..., Path]) -> None:
    folder = train_model(tmp_path, spread(HARD))
    path = folder / "tokenizer.model"
    data = path.read_bytes()
    for damaged in (b"", b"\0", data[: len(data) // 2], b"\xff" * 30, b"<html>", data[:100] + b"\xff" * 9 + data[109:]):
        path.write_bytes(damaged)
        with pytest.raises(
            ModelError, match=r"tokenizer.model: (not a SentencePiece model|has no pieces|.* cannot be)"
        ):
            read(folder, 2000)


# --- Types, roles, the chat template


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    return Path(shutil.copytree(checkpoint, tmp_path / "hf"))


def put(record: dict[str, Any], token: str) -> None:
    """One more token in the vocabulary; the one that was added last moves behind it."""
    tokens = record["model"]["vocab"]
    tokens[token] = len(tokens)
    record["added_tokens"][-1]["id"] = len(tokens)


def change(path: Path, **values: Any) -> None:
    record = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**record, **values}), "utf-8")


def test_types_follow_added_tokens_and_padding(folder: Path) -> None:
    tokenizer = read(folder, ROWS)
    assert len(tokenizer.tokens) == len(tokenizer.types) == ROWS
    types = dict(zip(tokenizer.tokens, tokenizer.types, strict=True))
    assert types["<|end|>"] == types["<|pad|>"] == TokenType.CONTROL
    assert types["<tag>"] == TokenType.USER_DEFINED
    assert types["Ġ"] == TokenType.NORMAL
    assert types[f"[PAD{ROWS - 1}]"] == TokenType.UNUSED
    assert (tokenizer.bos, tokenizer.ends, tokenizer.pad) == (None, (0,), 1)
    assert (tokenizer.add_bos, tokenizer.add_eos, tokenizer.chat_template) == (False, False, None)


def test_tokens_that_spell_no_bytes_are_unused(folder: Path) -> None:
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    put(record, "no bytes")
    (folder / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    tokenizer = read(folder, ROWS)
    assert tokenizer.types[tokenizer.tokens.index("no bytes")] == TokenType.UNUSED


def test_merges_as_strings_or_lists(folder: Path) -> None:
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    listed = read(folder, ROWS).merges
    assert all(isinstance(merge, list) for merge in record["merges"])
    change(folder / "tokenizer.json", model={**record, "merges": [" ".join(merge) for merge in record["merges"]]})
    assert read(folder, ROWS).merges == listed


def test_template_of_the_post_processor(folder: Path) -> None:
    single = [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    change(folder / "tokenizer.json", post_processor={"type": "Sequence", "processors": [template]})
    with pytest.raises(ModelError, match=r"the post-processor writes '<\|end\|>' before a text, which is not the bos"):
        read(folder, ROWS)
    change(folder / "tokenizer_config.json", bos_token="<|end|>")
    assert (read(folder, ROWS).add_bos, read(folder, ROWS).add_eos) == (True, False)
    change(folder / "tokenizer_config.json", add_bos_token=False, add_eos_token=True)
    assert (read(folder, ROWS).add_bos, read(folder, ROWS).add_eos) == (False, True)


def test_no_bos_is_never_added(folder: Path) -> None:
    change(folder / "tokenizer_config.json", add_bos_token=True)
    assert read(folder, ROWS).bos is None and not read(folder, ROWS).add_bos


def test_ends_are_the_tokenizers_then_the_generations(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[5, 0, True, -1, None])
    assert read(folder, ROWS).ends == (0, 5)


def test_bos_from_config_or_tokenizer(folder: Path) -> None:
    change(folder / "config.json", bos_token_id=7)
    assert read(folder, ROWS).bos == 7
    change(folder / "tokenizer_config.json", bos_token={"content": "<|pad|>"})
    assert read(folder, ROWS).bos == 1


def test_a_folder_with_nothing_but_the_tokenizer(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert read(folder, ROWS).ends == (0,)


def test_control_tokens_by_their_names(folder: Path) -> None:
    """Phi-3's </s> is not special and swallows white space; llama.cpp takes it for a control token all the same."""
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    added(content="</s>", id=401, rstrip=True)(record)
    (folder / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    tokenizer = read(folder, ROWS)
    assert tokenizer.types[401] == TokenType.CONTROL
    with open_vocabulary(tokenizer) as model:
        assert model.tokenize(b"</s>", special=True) == [401] and model.piece(401) is None


def test_other_programs_put_the_blank_that_the_tokenizer_puts(tmp_path: Path) -> None:
    """In llama.cpp without our override the ids of a line are those of Hugging Face, its first word's too."""
    llama = pytest.importorskip("llama_cpp")
    folder = sentence_piece(tmp_path, "Llama 2, Phi-3", spread(HARD), closed=True)
    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    read(folder, rows(folder)).write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    theirs = Theirs.from_file(str(folder / "tokenizer.json"))
    ours = llama.Llama(str(tmp_path / "x.gguf"), vocab_only=True, verbose=False)
    for line in (*HARD, *LINES):
        expected = theirs.encode(line, add_special_tokens=False).ids
        assert ours.tokenize(line.encode(), add_bos=False, special=True) == expected
    with VocabOnly(tmp_path / "x.gguf") as model:
        ids = model.tokenize(b"Naloxone", special=False)
        assert b"".join(model.piece(token) or b"" for token in ids) == b"Naloxone"


def test_chat_template_in_its_own_file_or_in_the_settings(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": "{{ a }}"}])
    assert read(folder, ROWS).chat_template == "{{ a }}"
    (folder / "chat_template.jinja").write_text("{{ b }}", "utf-8")
    assert read(folder, ROWS).chat_template == "{{ b }}"


PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|user|>\n' }}{% else %}{{ eos_token }}{% endif %}\n"
)
BLANKS = "{{ bos_token }} {{ messages[0]['content'] }}<|user|>  \n<|user|>x▁<|user|>▁x"
INST = "{{ bos_token }}{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}"


@pytest.mark.parametrize(
    ("style", "template", "rstrip"),
    [("Llama 2, Phi-3", PHI3, True), ("Llama 2, Phi-3", INST, False), ("Mistral 0.3", INST, False),
     ("Mistral 0.3", "plain {{ messages[0]['content'] }}", False), ("words apart", PHI3, True), ("Gemma", PHI3, True),
     ("Gemma", INST, False), *[(style, BLANKS, strip) for style in STYLES for strip in (True, False)]],
)  # fmt: skip
def test_prompts_have_the_ids_of_training(tmp_path: Path, style: str, template: str, rstrip: bool) -> None:
    """Hugging Face puts blanks before stretches of a prompt, and takes white space behind special tokens away."""
    transformers = pytest.importorskip("transformers")
    folder = sentence_piece(tmp_path, style, spread(HARD), closed=True)
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for token in record["added_tokens"]:
        token["rstrip"] = rstrip and token["special"]
    change(folder / "tokenizer.json", **record)
    change(folder / "tokenizer_config.json", chat_template=template)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>")
    theirs.bos_token, theirs.chat_template = "<s>", template
    text = "患者 was given Naloxone\n\n  twice "
    messages = [{"role": "user", "content": f"Tag drugs.\n{text}"}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)

    tokenizer = read(folder, rows(folder))
    asked = [{"role": "user", "content": f"Tag drugs.\n{TEXT}"}]
    assert tokenizer.chat_template == template
    prompt = prompts.build(tokenizer.prompt_template, asked, {"bos_token": "<s>", "eos_token": "<|end|>"})
    with open_vocabulary(tokenizer) as model:
        written = f"{prompt.before}{text}{prompt.after}".encode()
        assert model.tokenize(written, special=True) == expected
    assert (tokenizer.prompt_template == template) == (style == "Gemma" and not rstrip)


# --- What cannot be converted


def edit(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.update(values)


def model(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["model"].update(values)


def added(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["added_tokens"].append({**record["added_tokens"][-1], **values})


DEEP: Any = {"type": "Lowercase"}
for _ in range(200):
    DEEP = {"type": "Sequence", "normalizers": [DEEP]}

BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "model a list": (edit(model=[]), "'model' must be an object, not []"),
    "vocab a list": (model(vocab=["a"]), "'vocab' must be an object"),
    "merges an object": (model(merges={"a": "b"}), "'merges' must be a list"),
    "type a number": (model(type=3), "'type' must be a string, not 3"),
    "added a string": (edit(added_tokens="<s>"), "'added_tokens' must be a list"),
    "id a string": (lambda r: r["model"]["vocab"].update(x="1"), "token 'x' has the id \"1\", which is not an integer"),
    "id negative": (lambda r: r["model"]["vocab"].update(x=-1), "token 'x' has the id -1"),
    "id true": (lambda r: r["model"]["vocab"].update(x=True), "token 'x' has the id true"),
    "id huge": (lambda r: r["model"]["vocab"].update(x=10**30), "is outside the embedding of 410 rows"),
    "id twice": (lambda r: r["model"]["vocab"].update(x=9), "have the same id"),
    "empty token": (lambda r: put(r, ""), "the token '' cannot be represented"),
    "zero byte": (lambda r: put(r, "a\0"), r"the token 'a\x00' cannot be represented"),
    "half a character": (lambda r: put(r, "\ud83d"), r"the token '\ud83d' cannot be represented"),
    "merge of three": (lambda r: r["model"]["merges"].append(["a", "b", "c"]), 'is ["a", "b", "c"], not a pair'),
    "merge of one": (lambda r: r["model"]["merges"].append("ab"), 'is "ab", not a pair of tokens'),
    "merge of numbers": (lambda r: r["model"]["merges"].append([1, 2]), "is [1, 2], not a pair of tokens"),
    "merge of no tokens": (lambda r: r["model"]["merges"].append(["zq", "qz"]), 'is ["zq", "qz"], not a pair'),
    "merge to no token": (lambda r: r["model"]["merges"].append(["%", "~"]), ', ["%", "~"], does not form a token'),
    "merge of nothing": (lambda r: r["model"]["merges"].append(None), "is null, not a pair of tokens"),
    "added twice": (added(), "added token '<tag>' occurs twice"),
    "added elsewhere": (added(content="Ġ", id=408), "added token 'Ġ' has the id 408, but the vocabulary says"),
    "added over another": (added(content="<x>", id=5), "'<x>' and '$' have the same id, 5"),
    "added behind a hole": (added(content="<x>", id=408), "has the id 408, but the tokenizers library gives it 401"),
    "added without text": (added(content="", id=408), "has no id or no content"),
    "added a number": (edit(added_tokens=[3]), "added token 3 has no id or no content"),
    "special a string": (added(content="<x>", id=401, special="yes"), "'special' must be true or false"),
    "rstrip of text": (added(content="<x>", id=401, rstrip=True), "rstrip of '<x>' cannot be converted"),
    "single words": (added(content="<x>", id=401, single_word=True), "single_word of '<x>' cannot be converted"),
    "overlapping": (added(content="g><abc", id=401), "the added tokens '<tag>' and 'g><abc' can overlap"),
    "normalizer a string": (edit(normalizer="NFC"), 'normalizer "NFC" has no type'),
    "deep normalizer": (edit(normalizer=DEEP), 'normalizer {"type": "Lowercase"} cannot be converted'),
    "sequence of a number": (edit(decoder={"type": "Sequence", "decoders": 3}), "'decoders' must be a list"),
    "template a number": (edit(post_processor={"type": "TemplateProcessing", "single": 3}), "has no template for"),
    "neither kind": (edit(pre_tokenizer=None, decoder=None), "neither byte-level nor SentencePiece-style BPE"),
    "dropout": (model(dropout=0.1), "dropout 0.1 cannot be converted"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_byte_level(folder: Path, damage: Callable[[dict[str, Any]], object], message: str) -> None:
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    damage(record)
    assert_refused(folder, record, ROWS, message)


SENTENCE_PIECE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no byte fallback": (model(byte_fallback=False), "byte_fallback false cannot be converted"),
    "ignoring merges": (model(ignore_merges=True), "ignore_merges true cannot be converted"),
    "unknown normalizer": (edit(normalizer={"type": "NFKC"}), 'normalizer {"type": "NFKC"}'),
    "unknown splitting": (edit(pre_tokenizer={"type": "Digits", "individual_digits": True}), "pre-tokenizer {"),
    "blanks that stay": (edit(normalizer=None, pre_tokenizer=None), "spaces that are not escaped as ▁ cannot"),
    "other decoding": (edit(decoder={"type": "Metaspace", "replacement": SPACE}), "decoder {"),
    "missing byte": (lambda r: r["model"]["vocab"].pop("<0xE3>"), "no token for 1 of the bytes (<0xE3>)"),
    "bytes joined": (lambda r: merge(r, "<0xE3>", "a"), "joins bytes"),
    "a blank in a merge": (lambda r: merge(r, "a ", "b"), "has a space, which is"),
    "over lines": (lambda r: (merge(r, "a", "\n"), merge(r, "b", "a\n")), "crosses a line end"),
    "over words": (
        lambda r: (r.update(STYLES["words apart"]), merge(r, "b", SPACE)),
        "where the text is split",
    ),
    "prefixed tag": (
        lambda r: (r.update(STYLES["Llama 2, Phi-3"]), added(content="<t>", id=262, special=False, normalized=True)(r)),
        "normalized of '<t>' cannot be converted",
    ),
    "two texts of an id": (lambda r: r["model"]["vocab"].update(x=260), "have the same id"),
    "no merges": (model(merges=[]), "no merges, which llama.cpp cannot load"),
}  # fmt: skip


def merge(record: dict[str, Any], left: str, right: str) -> None:
    tokens = record["model"]["vocab"]
    for token in (left, right, left + right):
        tokens.setdefault(token, len(tokens))
    record["model"]["merges"].append([left, right])


@pytest.mark.parametrize(("damage", "message"), SENTENCE_PIECE.values(), ids=SENTENCE_PIECE.keys())
def test_broken_sentence_piece(tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str) -> None:
    record = by_hand(["a", "b", SPACE, "ab", "ba"], [("a", "b")])  # ba is left as b and a, so there are no scores
    damage(record)
    assert_refused(save(tmp_path, record), record, 400, message)


def assert_refused(folder: Path, record: dict[str, Any], size: int, message: str) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(ModelError) as caught:
        read(folder, size)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "[]", "must hold a JSON object"),
        ("tokenizer_config.json", '{"eos_token": 3}', "the eos token 3 is not in tokenizer.json"),
        ("tokenizer_config.json", '{"eos_token": "<|end|>", "chat_template": 3}', "chat_template is not text"),
        ("tokenizer_config.json", r'{"eos_token": "<|end|>", "chat_template": "\ud83d"}', "chat_template is not text"),
        ("generation_config.json", '{"eos_token_id": [1, 2, 3, 4]}', "at most 3"),
        ("generation_config.json", '{"eos_token_id": 99999999999999999999}', "each below 410"),
        ("chat_template.jinja", b"\xff\xfe", "not UTF-8 text"),
        ("tokenizer.json", b"\xff", "not JSON"),
        ("tokenizer.json", "[" * 100000, "not JSON"),
    ],
)
def test_broken_files(folder: Path, name: str, content: str | bytes, message: str) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError) as caught:
        read(folder, ROWS)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_vocabulary_beyond_all_measure(folder: Path) -> None:
    with pytest.raises(ModelError, match=" 1000000000000 rows are not possible for an embedding"):
        read(folder, 10**12)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value, of long lists and objects the first few."""
    yield path
    if isinstance(value, dict | list):
        for key in islice(value if isinstance(value, dict) else range(len(value)), 4):
            yield from places(value[key], (*path, key))


def test_any_part_of_another_type(folder: Path) -> None:
    """Whatever stands in some place, there is an error in one line, or a tokenizer."""
    record = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for path in places(record):
        for value in (None, 3, -1, "x", [], {}, [[]], True, 1e300, {"type": "Sequence"}):
            changed = json.loads(json.dumps(record))
            if not path:
                changed = value
            else:
                at = changed
                for key in path[:-1]:
                    at = at[key]
                at[path[-1]] = value
            (folder / "tokenizer.json").write_text(json.dumps(changed), "utf-8")
            try:
                read(folder, ROWS)
            except ModelError as error:
                assert "\n" not in str(error)
