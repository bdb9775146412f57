"""A padding token beyond the embedding: left out where nothing feeds it, refused where something might."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bioner_edge.backends.loading import load_backend
from bioner_edge.cli import app
from bioner_edge.convert.vocabulary import read, reference
from bioner_edge.convert.vocabulary.unused_tokens import drop_unused
from bioner_edge.errors import ModelError

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

TEMPLATE = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
TEXT = "Naloxone [PAD] reverses clonidine."


def padded(checkpoint: Path, folder: Path, *contents: str) -> Path:
    """A checkpoint whose tokenizer was given tokens, the first for padding, and saved; the embedding is as it was."""
    shutil.copytree(checkpoint, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": contents[0]})
    tokenizer.add_special_tokens({"additional_special_tokens": list(contents[1:])})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def rows(checkpoint: Path) -> int:
    count: int = json.loads((checkpoint / "config.json").read_text("utf-8"))["vocab_size"]
    return count


def edit(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")


@pytest.mark.parametrize("to", ["gguf", "onnx"])
def test_converted_without_it(checkpoint: Path, exporters_here: None, tmp_path: Path, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime_genai")
    base = padded(checkpoint, tmp_path / "base", "[PAD]")
    encode, size = reference(base), rows(checkpoint)
    assert encode("a[PAD]")[-1] == size  # as the original has it
    arguments = ["convert", "--base", base, "--out", tmp_path / "out", "--quant", "F32", "--to", to]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.exception, done.stderr)
    assert (
        f"left out of the vocabulary: '[PAD]'; the embedding has only {size} rows, and no text or prompt uses the token"
        in done.stderr
    )
    assert "those that differ from Hugging Face: 0" in done.stderr
    with load_backend(Path(done.stdout.strip()), threads=1) as model:  # type: ignore[attr-defined]
        assert model.vocabulary_size == size
        for text in (TEXT, "患者 α 🙂 <tag>", "    indented\r\n\n"):
            ids = model.tokenize(text.encode(), False)
            assert b"".join(model.piece(token) or b"" for token in ids).decode() == text
            if "[PAD]" not in text:
                assert ids == encode(text)


def test_trimmed_without_it(checkpoint: Path, tmp_path: Path) -> None:
    base = padded(checkpoint, tmp_path / "base", "[PAD]")
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = ["convert", "--base", base, "--out", tmp_path / "out", "--trim-vocab", tmp_path / "text.txt"]
    done = CliRunner().invoke(app, [str(argument) for argument in [*arguments, "--quant", "F32"]])
    assert done.exit_code == 0, (done.exception, done.stderr)


def test_what_is_left_out(checkpoint: Path, tmp_path: Path) -> None:
    base = padded(checkpoint, tmp_path / "base", "<pad_a>", "<b>", "<c>")
    folder, left = drop_unused(base, rows(checkpoint), tmp_path / "out")
    assert left == ["<pad_a>", "<b>", "<c>"] and folder == tmp_path / "out"
    found = read(folder, rows(checkpoint))
    assert found.pad is None and not {"<pad_a>", "<b>", "<c>"} & set(found.tokens)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == rows(checkpoint) and theirs.pad_token is None and theirs.chat_template == TEMPLATE


def test_nothing_is_left_out_of_what_fits(checkpoint: Path, tmp_path: Path) -> None:
    assert drop_unused(checkpoint, rows(checkpoint), tmp_path / "out") == (checkpoint, [])
    base = padded(checkpoint, tmp_path / "base", "[PAD]")
    assert drop_unused(base, rows(checkpoint) + 1, tmp_path / "out") == (base, [])
    assert not (tmp_path / "out").exists()


def _settings(**changes: Any) -> Callable[[Path], object]:
    return lambda base: edit(base / "tokenizer_config.json", lambda settings: settings.update(changes))


def _plain(base: Path) -> None:
    """Text, and not a role of any kind."""
    edit(base / "tokenizer.json", lambda r: r["added_tokens"][-1].update(special=False))
    _settings(pad_token=None)(base)


FED: dict[str, Callable[[Path], object]] = {
    "text of a document": _plain,
    "the end of an answer": _settings(eos_token="[PAD]"),
    "the beginning": _settings(bos_token={"content": "[PAD]", "__type": "AddedToken"}),
    "in the template": lambda base: (base / "chat_template.jinja").write_text("[PAD]" + TEMPLATE),
    "an end by its id": lambda base: edit(base / "config.json", lambda c: c.update(eos_token_id=[0, c["vocab_size"]])),
    "before every text": lambda base: edit(
        base / "tokenizer.json",
        lambda r: r.update(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[PAD]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"[PAD]": {"id": "[PAD]", "ids": [r["added_tokens"][-1]["id"]], "tokens": ["[PAD]"]}},
            }
        ),
    ),
}


@pytest.mark.parametrize("change", FED.values(), ids=FED.keys())
def test_what_may_be_fed_is_refused(checkpoint: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    base = padded(checkpoint, tmp_path / "base", "[PAD]")
    change(base)
    folder, left = drop_unused(base, rows(checkpoint), tmp_path / "out")
    assert (folder, left) == (base, [])
    with pytest.raises(ModelError, match=r"token id \d+ is outside the embedding of \d+ rows; resize it|end tokens"):
        read(folder, rows(checkpoint))


def test_a_tokenizer_model_with_a_padding_token(tmp_path: Path) -> None:
    """Llama 2, as many trainings had it: 32000 rows, and <pad> or [PAD] as token 32000."""
    for name, files in {
        "by its row": {
            "tokenizer_config.json": {
                "added_tokens_decoder": {"5": {"content": "<pad>", "special": True}},
                "pad_token": "<pad>",
            }
        },
        "by its role": {"added_tokens.json": {"<pad>": 5}, "tokenizer_config.json": {"pad_token": "<pad>"}},
        "both": {
            "added_tokens.json": {"<pad>": 5},
            "special_tokens_map.json": {"pad_token": {"content": "<pad>"}},
            "tokenizer_config.json": {
                "added_tokens_decoder": {"5": {"content": "<pad>", "special": True}},
                "pad_token": {"content": "<pad>", "__type": "AddedToken"},
            },
        },
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tokenizer.model").write_bytes(b"pieces")
        for file, content in files.items():
            (folder / file).write_text(json.dumps(content))
        out, left = drop_unused(folder, 5, tmp_path / f"{name} out")
        assert left == ["<pad>"] and (out / "tokenizer.model").read_bytes() == b"pieces"
        written = {file: json.loads((out / file).read_text()) for file in files}
        assert all("<pad>" not in json.dumps(content) for content in written.values())
