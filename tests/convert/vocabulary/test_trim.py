"""A trimmed vocabulary makes the same tokens of the text that it was trimmed to, of any other the same bytes."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("tokenizers")

from tokenizers import Regex, decoders, models, processors, trainers
from tokenizers import Tokenizer as Theirs
from tokenizers import pre_tokenizers as p

from bioner_edge.convert.vocabulary import read, reference, specials
from bioner_edge.convert.vocabulary.llama_vocabulary import open_vocabulary
from bioner_edge.convert.vocabulary.trim import Trimmed, trim_vocabulary
from bioner_edge.errors import ModelError

ROOT = Path(__file__).parents[3]
TRAINED = (
    "Naloxone reverses the antihypertensive effect of clonidine in spontaneously hypertensive rats.",
    "The patient's blood pressure didn't fall; it rose by 12 mmHg, 2024-01-31. aaaa bbbb abab baba",
    "患者は高血圧を有し、薬を服用していた。 α-Synuclein β1 γδ T cells, café cafe\u0301",
    "    indented    text\r\nwith\tcontrols\n\n\nand 🙂 emoji 🧬 <|user|> Tag",
)
OTHER = ("Aspirin relieved headache in 12 of 30.", "Ωμέγα 🧪 高 ﷺ हिन्दी\n\n\t x", " ", "", "abba baab")
SPACE = "▁"
SENTENCE_PIECE = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ],
    },
    "pre_tokenizer": None,
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    },
}
NAMES = ("tokenizer.json", "config.json", "generation_config.json", "tokenizer_config.json", "added_tokens.json")
SPECIAL = ["<unk>", "<s>", "<|end|>", "<|user|>"]


def byte_level(ignore_merges: bool = False) -> dict[str, Any]:
    bpe = Theirs(models.BPE(ignore_merges=ignore_merges))
    bpe.pre_tokenizer = p.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = p.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    bpe.train_from_iterator(TRAINED * 3, trainer)
    record = json.loads(bpe.to_str())
    record["normalizer"] = {"type": "NFC"}
    if ignore_merges:
        llama3 = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        split = p.Sequence([p.Split(Regex(llama3), "isolated"), p.ByteLevel(add_prefix_space=False, use_regex=False)])
        bpe.pre_tokenizer = split
        record["pre_tokenizer"] = json.loads(bpe.to_str())["pre_tokenizer"]
        record["model"]["vocab"]["ĠNaloxone"] = len(record["model"]["vocab"])  # which no merge makes
    return record


def sentence_piece() -> dict[str, Any]:
    bpe = Theirs(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.pre_tokenizer = p.Sequence([p.Split(SPACE, "merged_with_next"), p.Split(Regex(r"\n+"), "isolated")])
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    bpe.train_from_iterator([line.replace(" ", SPACE) for line in TRAINED * 3], trainer)
    record = {**json.loads(bpe.to_str()), **SENTENCE_PIECE}
    record["added_tokens"] = record["added_tokens"][: len(SPECIAL)]
    return record


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "byte-level": byte_level,
    "byte-level, words whole": lambda: byte_level(ignore_merges=True),
    "SentencePiece-style": sentence_piece,
}


def save(folder: Path, record: dict[str, Any]) -> Path:
    """The folder of a model that names its tokens in every place where transformers does."""
    folder.mkdir()
    last = record["added_tokens"][-1]
    following = 1 + max([*record["model"]["vocab"].values(), last["id"]])
    record["added_tokens"].append({**last, "id": following, "content": "<tag>", "special": False})
    tokens = record["model"]["vocab"]
    theirs = Theirs.from_str(json.dumps(record))
    pairs = [("<s>", tokens["<s>"]), ("<tag>", following)]
    theirs.post_processor = processors.TemplateProcessing(single="<s>:0 $A:0 <tag>:0", special_tokens=pairs)
    theirs.enable_padding(pad_id=tokens["<|end|>"], pad_token="<|end|>")
    theirs.save(str(folder / "tokenizer.json"))
    files: dict[str, Any] = {
        "config.json": {
            "vocab_size": following + 9,
            "eos_token_id": tokens["<|end|>"],
            "bos_token_id": tokens["<s>"],
            "pad_token_id": following + 5,
            "text_config": {"vocab_size": following + 9, "eos_token_id": [tokens["<|end|>"], following]},
            "hidden_size": 4,
        },
        "generation_config.json": {
            "eos_token_id": [tokens["<|end|>"], following],
            "suppress_tokens": [tokens["a"]],
            "max_new_tokens": 2,
        },
        "tokenizer_config.json": {
            "bos_token": "<s>",
            "eos_token": {"content": "<|end|>"},
            "added_tokens_decoder": {str(t["id"]): t for t in record["added_tokens"]},
        },
        "added_tokens.json": {"<tag>": following},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}\n", "utf-8")
    return folder


@pytest.fixture(params=KINDS, scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("source") / "model", KINDS[request.param]())


def load(folder: Path) -> Theirs:
    return Theirs.from_file(str(folder / "tokenizer.json"))


def assert_the_same(source: Path, out: Path, kept: NDArray[np.int64], given: list[str], other: list[str]) -> None:
    """Of the given texts the same tokens, of others the same bytes; by Hugging Face and by llama.cpp."""
    before, after = load(source), load(out)
    for text in given:
        assert kept[after.encode(text).ids].tolist() == before.encode(text).ids, text
    for text in [*given, *other]:
        assert after.decode(after.encode(text).ids) == before.decode(before.encode(text).ids)
    encode = reference(out)
    with open_vocabulary(read(out, len(kept))) as model:
        for text in [*given, *other, *specials(out)]:
            assert model.tokenize(text.encode(), special=True) == encode(text)
        for text in [*given, *other]:
            pieces = [model.piece(token) or b"" for token in model.tokenize(text.encode(), special=False)]
            assert b"".join(pieces) == text.encode()


# --- Tokenizers


def test_the_text_keeps_its_tokens(source: Path, tmp_path: Path) -> None:
    kept = trim_vocabulary(source, iter(TRAINED[1:3]), tmp_path / "out")
    whole = load(source).get_vocab_size()
    assert 256 < len(kept) < whole and (np.diff(kept) > 0).all()
    assert_the_same(source, tmp_path / "out", kept, list(TRAINED[1:3]), [TRAINED[0], TRAINED[3], *OTHER])


def test_a_text_keeps_the_tokens_that_normalization_gives_it(source: Path, tmp_path: Path) -> None:
    kept = trim_vocabulary(source, ["cafe\u0301"], tmp_path / "out")
    assert_the_same(source, tmp_path / "out", kept, ["cafe\u0301"], ["café"])


@given(st.lists(st.text("ab N\n'é高<", max_size=30) | st.sampled_from(TRAINED), max_size=3), st.text(max_size=20))
@settings(max_examples=25)
def test_any_text(source: Path, tmp_path_factory: pytest.TempPathFactory, texts: list[str], other: str) -> None:
    out = tmp_path_factory.mktemp("any")
    kept = trim_vocabulary(source, texts, out)
    before, after = load(source), load(out)
    for text in texts:
        assert kept[after.encode(text).ids].tolist() == before.encode(text).ids
    if SPACE not in other:
        assert after.decode(after.encode(other).ids, skip_special_tokens=False) == before.decode(
            before.encode(other).ids, skip_special_tokens=False
        )


def test_everything_may_be_kept(source: Path, tmp_path: Path) -> None:
    first = trim_vocabulary(source, TRAINED, tmp_path / "once")
    again = trim_vocabulary(tmp_path / "once", TRAINED, tmp_path / "twice")
    assert again.tolist() == list(range(len(first)))
    for name in NAMES:
        assert json.loads((tmp_path / "once" / name).read_text()) == json.loads((tmp_path / "twice" / name).read_text())


def test_every_file_names_the_new_ids(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = trim_vocabulary(source, ["rats"], out)
    files = {path.name: path.read_text("utf-8") for path in out.iterdir()}
    record, config, generation, roles, added = (
        json.loads(files.pop(name))
        for name in (
            "tokenizer.json",
            "config.json",
            "generation_config.json",
            "tokenizer_config.json",
            "added_tokens.json",
        )
    )
    assert files == {"chat_template.jinja": "{{ messages }}\n"}
    new = {t: i for t, i in record["model"]["vocab"].items()} | {t["content"]: t["id"] for t in record["added_tokens"]}
    old = json.loads((source / "tokenizer.json").read_text("utf-8"))
    assert sorted(new.values()) == list(range(len(kept))) and new["<tag>"] == len(kept) - 1
    assert all(kept[index] == old["model"]["vocab"].get(token, kept[-1]) for token, index in new.items())
    assert all({left, right, left + right} <= new.keys() for left, right in record["model"]["merges"])
    assert record["post_processor"]["special_tokens"]["<tag>"]["ids"] == [new["<tag>"]]
    assert record["padding"]["pad_id"] == new["<|end|>"]
    assert config == {
        "vocab_size": len(kept),
        "eos_token_id": new["<|end|>"],
        "bos_token_id": new["<s>"],
        "pad_token_id": None,  # it was a row without a token
        "text_config": {"vocab_size": len(kept), "eos_token_id": [new["<|end|>"], new["<tag>"]]},
        "hidden_size": 4,
    }
    assert generation == {
        "eos_token_id": [new["<|end|>"], new["<tag>"]],
        "suppress_tokens": [new["a"]],
        "max_new_tokens": 2,
    }
    assert {i: t["content"] for i, t in roles["added_tokens_decoder"].items()} == {
        str(new[t]): t for t in [*SPECIAL, "<tag>"]
    }
    assert added == {"<tag>": new["<tag>"]}
    tokenizer = read(out, len(kept))
    assert (tokenizer.bos, tokenizer.ends) == (new["<s>"], (new["<|end|>"], new["<tag>"]))


def test_the_older_post_processor(source: Path, tmp_path: Path) -> None:
    record = json.loads((source / "tokenizer.json").read_text("utf-8"))
    last = record["added_tokens"][-1]
    roberta = {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": False, "cls": ["<s>", 1]}
    record["post_processor"] = {"type": "Sequence", "processors": [{**roberta, "sep": ["<tag>", last["id"]]}]}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "tokenizer.json").write_text(json.dumps(record), "utf-8")
    (tmp_path / "in" / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}', "utf-8")
    kept = trim_vocabulary(tmp_path / "in", TRAINED, tmp_path / "out")
    ids = load(tmp_path / "out").encode(TRAINED[0]).ids
    assert kept[ids].tolist() == load(tmp_path / "in").encode(TRAINED[0]).ids and ids[-1] == len(kept) - 1 != last["id"]


def test_needs_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ModelError, match=r"tokenizer.json: missing; trimming needs it"):
        trim_vocabulary(tmp_path, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_on_text(tmp_path: Path) -> None:
    """A vocabulary of 8,000, trimmed to some documents; others take few tokens more."""
    folder = Path(os.environ.get("BIONER_TEXT") or ROOT.parent / "shared" / "text")
    if not (folder / "part-1.jsonl.xz").is_file():
        pytest.skip(f"no text: {folder} has no part-1.jsonl.xz; set $BIONER_TEXT")
    with lzma.open(folder / "part-1.jsonl.xz", "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"][:4000] for line in islice(stream, 150)]
    bpe = Theirs(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = p.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = p.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    source = save(tmp_path / "model", json.loads(bpe.to_str()))
    kept = trim_vocabulary(source, texts[:40], tmp_path / "out")
    assert len(kept) < 7000
    assert_the_same(source, tmp_path / "out", kept, texts[:40], texts[100:])
    before, after = load(source), load(tmp_path / "out")
    sizes = [sum(len(t.encode(text).ids) for text in texts[100:]) for t in (before, after)]
    assert sizes[0] < sizes[1] < 1.5 * sizes[0]


# --- Weights


class Weights:
    """A source of two tied matrices, a bias, and a tensor that has nothing to do with tokens."""

    folder = Path("model")
    files = (Path("model/model.safetensors"),)

    def __init__(self, **config: Any) -> None:
        self.config: Mapping[str, Any] = {"vocab_size": 6, "eos_token_id": 4, "pad_token_id": 5, **config}
        self.tensors = {
            "model.embed_tokens.weight": np.arange(12, dtype=np.float32).reshape(6, 2),
            "lm_head.weight": np.arange(100, 112, dtype=np.float32).reshape(6, 2),
            "lm_head.bias": np.arange(6, dtype=np.float32),
            "model.layers.0.mlp.up_proj.weight": np.ones((6, 2), np.float32),
        }

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.tensors[name]


def test_rows_of_the_kept_tokens() -> None:
    source = Weights(text_config={"vocab_size": 6})
    kept = Trimmed(source, np.array([0, 3, 4]))
    assert kept.config == {
        "vocab_size": 3,
        "eos_token_id": 2,
        "pad_token_id": None,
        "text_config": {"vocab_size": 3},
    }
    assert source.config["vocab_size"] == 6
    assert (kept.folder, kept.files) == (source.folder, source.files)
    for name, tensor in source.tensors.items():
        expected = tensor if "up_proj" in name else tensor[[0, 3, 4]]
        assert kept.shapes()[name] == expected.shape
        np.testing.assert_array_equal(kept.tensor(name), expected)


def test_vocab_size_of_the_text_config() -> None:
    source = Weights(text_config={"vocab_size": 6})
    source.config = {key: value for key, value in source.config.items() if key != "vocab_size"}
    assert Trimmed(source, np.array([0, 3])).config["text_config"] == {"vocab_size": 2}


def test_rows_that_are_not_there() -> None:
    with pytest.raises(ModelError, match="model: token 6 has no row in an embedding of 6; resize it"):
        Trimmed(Weights(), np.array([0, 6]))
    with pytest.raises(ModelError, match=r"model: no embedding has vocab_size = 7 rows; correct config\.json"):
        Trimmed(Weights(vocab_size=7), np.array([0]))
