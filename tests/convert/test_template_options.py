"""What a chat template asks for is set once, at conversion, and stands in every prompt from then on."""

from __future__ import annotations

import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bioner_edge import load
from bioner_edge.backends.loading import load_backend
from bioner_edge.cli import app
from bioner_edge.errors import BionerError
from bioner_edge.models.manifest import Manifest, manifest_path

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

TEMPLATE = """{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif -%}
Today: {{ strftime_now("%d %b %Y") }}
{% for m in messages %}
<|{{ m.role }}|>{{ m.content }}
{% endfor %}
{% if add_generation_prompt %}<|assistant|><think>
{{ "" if enable_thinking else "\n</think>\n" }}{% endif %}"""
ABOUT = ("--labels", "Chemical", "--format", "multi_tag", "--quant", "F32", "--no-verify")


@pytest.fixture(scope="module")
def base(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = make_checkpoint(tmp_path_factory.mktemp("base") / "tiny", max_position_embeddings=2048)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return folder


def convert(base: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["convert", "--base", str(base), "--out", str(out), *ABOUT, *arguments])


def prompt(path: Path) -> tuple[str | None, str, str]:
    """The template of a converted model, and what it writes before and after a document."""
    from bioner_edge.formats import TEXT
    from bioner_edge.prompts import build

    told: list[str] = []
    with load_backend(path, threads=1) as model:  # type: ignore[attr-defined]
        messages = [{"role": "user", "content": TEXT}]
        made = build(model.chat_template, messages, model.template_tokens, tell=told.append)
    assert not any("date" in note for note in told)
    return model.chat_template, made.before, made.after


@pytest.mark.parametrize("to", ["gguf", "onnx"])
def test_options_are_in_the_model_and_its_manifest(base: Path, exporters_here: None, tmp_path: Path, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime_genai")
    given = ("--template-option", "enable_thinking=false", "--template-option", "strftime_now=2024-02-29")
    done = convert(base, tmp_path, "--to", to, *given)
    assert done.exit_code == 0, (done.exception, done.stderr)
    assert "chat template: strftime_now=2024-02-29, enable_thinking=false, in every prompt" in done.stderr
    assert "warning" not in done.stderr
    path = Path(done.stdout.strip())
    _, before, after = prompt(path)
    assert before == "Today: 29 Feb 2024\n<|user|>" and after == "\n<|assistant|><think>\n\n</think>\n"
    options = Manifest.load(manifest_path(path)).base["template_options"]
    assert options == {"enable_thinking": False, "strftime_now": "2024-02-29"}
    load(path, threads=1).close()


def test_by_default_the_date_is_that_of_the_conversion(base: Path, tmp_path: Path) -> None:
    days = {date.today()}
    done = convert(base, tmp_path)
    days.add(date.today())
    assert done.exit_code == 0, (done.exception, done.stderr)
    assert "warning: the model's chat template opens a thinking part, <think>, and the answer is forced" in done.stderr
    path = Path(done.stdout.strip())
    _, before, after = prompt(path)
    assert before in {f"Today: {day:%d %b %Y}\n<|user|>" for day in days} and after.endswith("<|assistant|><think>\n")
    with pytest.warns(UserWarning, match="opens a thinking part") as warned:
        load(path, threads=1).close()
    assert len(warned) == 1
    again = convert(base, tmp_path / "again", "--template-option", "strftime_now=2031-01-01")
    assert Manifest.load(manifest_path(Path(again.stdout.strip()))).base["template_options"] == {
        "strftime_now": "2031-01-01"
    }


def test_other_programs_find_the_template_as_it_was(base: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    done = convert(base, tmp_path, "--template-option", "enable_thinking=false")
    fields = GGUFReader(done.stdout.strip()).fields
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE
    assert re.match(r"\{% set strftime_now = strftime_at\(", fields["bioner.chat_template"].contents())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["thinking=false"], "--template-option unknown name 'thinking'; known: enable_thinking, strftime_now"),
        (["enable_thinking"], "--template-option 'enable_thinking': must be NAME=VALUE, such as enable_thinking=false"),
        (["=1"], "must be NAME=VALUE"),
        (["strftime_now=tomorrow"], "strftime_now=tomorrow: must be a date, such as 2026-01-31"),
        (["strftime_now=20260131"], "must be a date, such as 2026-01-31"),
    ],
)
def test_refused(base: Path, tmp_path: Path, options: list[str], told: str) -> None:
    done = convert(base, tmp_path / "out", *(part for option in options for part in ("--template-option", option)))
    assert isinstance(done.exception, BionerError) and told in str(done.exception)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_not_of_an_adapter_alone(base: Path, tmp_path: Path) -> None:
    done = convert(base, tmp_path, "--runtime-adapter", "--adapter", "a", "--template-option", "enable_thinking=false")
    assert "--runtime-adapter with --template-option: an adapter alone is not merged" in str(done.exception)


def test_a_model_without_a_template_asks_nothing(base: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert convert(bare, tmp_path / "out").exit_code == 0
    done = convert(bare, tmp_path / "other", "--template-option", "enable_thinking=false")
    assert "unknown name 'enable_thinking'; known: none in this template" in str(done.exception)
