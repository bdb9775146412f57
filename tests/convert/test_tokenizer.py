"""What a GGUF is told of a tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType

pytest.importorskip("transformers")

from bioner_edge.convert.tokenizer import read

ROWS = 410


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "hf"))


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
    assert (read(folder, ROWS).add_bos, read(folder, ROWS).add_eos) == (True, False)
    change(folder / "tokenizer_config.json", add_bos_token=False, add_eos_token=True)
    assert (read(folder, ROWS).add_bos, read(folder, ROWS).add_eos) == (False, True)


def test_ends_are_the_tokenizers_then_the_generations(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[5, 0])
    assert read(folder, ROWS).ends == (0, 5)


def test_bos_from_config_or_tokenizer(folder: Path) -> None:
    change(folder / "config.json", bos_token_id=7)
    assert read(folder, ROWS).bos == 7
    change(folder / "tokenizer_config.json", bos_token={"content": "<|pad|>"})
    assert read(folder, ROWS).bos == 1


def test_chat_template_in_its_own_file_or_in_the_settings(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": "{{ a }}"}])
    assert read(folder, ROWS).chat_template == "{{ a }}"
    (folder / "chat_template.jinja").write_text("{{ b }}", "utf-8")
    assert read(folder, ROWS).chat_template == "{{ b }}"
