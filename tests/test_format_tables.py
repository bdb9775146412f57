"""The list of formats and each one in full: all of it is what the formats themselves write."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp.llama_cpp as lib
import pytest
from rich.console import Console

from bioner_edge import format_tables
from bioner_edge.backends.vocab_only import VocabOnly
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.format_tables import EXAMPLE, LABELS, example
from bioner_edge.formats import FORMATS
from bioner_edge.models import registry

Run = Callable[..., tuple[int, str, list[str]]]
STRANGE = ["Anatomical site", "症状"]


@pytest.fixture
def run(cli: Run) -> Run:
    """`cli formats`."""
    return partial(cli, "formats")


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[VocabOnly]:
    with VocabOnly(registry.find(None)[0]) as loaded:
        assert isinstance(loaded, VocabOnly)
        yield loaded


# The example


def test_the_example_marks_what_it_says() -> None:
    assert [(e.label, e.mention(EXAMPLE.text)) for e in EXAMPLE.entities] == [
        ("Chemical", "Naloxone"),
        ("Chemical", "clonidine"),
        ("Disease", "Hypertension"),
        ("Chemical", "clonidine"),
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["Chemical", "Disease"], ["Chemical", "Chemical", "Disease", "Chemical"]),
        (["Disease", "Chemical"], ["Chemical", "Chemical", "Disease", "Chemical"]),
        (["Disease"], ["Disease"]),
        (["A", "B", "C"], ["A", "A", "B", "A"]),
        (["A"], ["A", "A", "A"]),
        (["Disease", "A"], ["A", "A", "Disease", "A"]),
        (["A", "Chemical"], ["Chemical", "Chemical", "A", "Chemical"]),
    ],
)
def test_labels_of_ones_own_stand_for_those_of_the_example(labels: list[str], expected: list[str]) -> None:
    assert [e.label for e in example(labels).entities] == expected


@pytest.mark.parametrize("labels", [list(LABELS), STRANGE], ids=["own", "strange"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_expresses_the_whole_example(name: str, labels: list[str]) -> None:
    read = set()
    for asked, answer in format_tables.answers(name, labels):
        parsed = FORMATS[name].parse(answer, EXAMPLE.without_entities(), asked)
        assert not parsed.problems
        read |= {e.key for e in parsed.entities}
    assert read == {e.key for e in example(labels).entities}


# The list


def cells(column: int) -> list[str]:
    return [str(cell) for cell in format_tables.overview().columns[column].cells]


def test_the_list_has_a_row_for_each_format(vocabulary: VocabOnly) -> None:
    assert cells(0) == list(FORMATS)
    assert cells(2) == [form.CANNOT for form in FORMATS.values()] and all(cells(2))
    counts = {
        name: str(
            sum(len(vocabulary.tokenize(answer.encode(), False)) for _, answer in format_tables.answers(name, LABELS))
        )
        for name in FORMATS
    }
    assert cells(3) == list(counts.values())
    tuned = {
        name: model for model, row in reversed(registry.listed_models().items()) for name in row.formats
    }  # the first
    assert cells(4) == [tuned.get(name, "untuned") for name in FORMATS] and len(tuned) >= 3
    for name, shown in zip(FORMATS, cells(1), strict=True):
        for asked, answer in format_tables.answers(name, LABELS):
            whole = answer.replace("\t", "⇥")
            assert whole in shown or (name.endswith(("_tag", "_bio", "_brat")) and "…" in shown), (asked, shown)


def test_the_list_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", lambda: None)
    assert set(cells(3)) == set(cells(4)) == {"–"}
    assert "tokens of" not in format_tables.details("multi_tag", LABELS, {})


def test_the_list_in_a_pipe_and_on_a_narrow_terminal(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, []) and "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100
    assert all(f"\n {name} " in out for name in FORMATS)
    assert out == run()[1]
    console = Console(file=io.StringIO(), width=60)
    console.print(format_tables.overview())
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert all(f"\n {name} " in printed for name in FORMATS) and "untuned" in printed


# One format


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_in_full(run: Run, name: str) -> None:
    code, out, err = run("show", name, "--labels", ",".join(STRANGE))
    assert (code, err) == (0, [])
    assert out.startswith(f"{name}: {format_tables.description(name)}\ncannot express: {FORMATS[name].CANNOT}\n")
    assert 10 < len(format_tables.description(name)) < 120
    for asked, answer in format_tables.answers(name, STRANGE):
        count = rf"-- answer, \d+ tokens of \S+\.gguf\n{re.escape(answer)}\n"
        assert re.search(rf"\n== {', '.join(asked)}\n(-- \w+\n[^§]*){count}", out)
    assert EXAMPLE.text in out and "\ue000" not in out


@pytest.mark.parametrize("name", FORMATS)
def test_guidelines_are_shown_where_they_are_asked(run: Run, name: str) -> None:
    Path("g.toml").write_text('Chemical = "any substance"\nGene = "DNA"\n')
    _, out, err = run("show", name, "--guidelines", "g.toml")
    assert out.count("any substance") == 1
    told = "the guideline for 'Gene' is not used: it is none of the labels Chemical, Disease"
    assert err == [f"bioner-edge: warning: {told}"]


# Its grammar


@pytest.mark.parametrize("labels", [["Chemical"], list(LABELS), STRANGE], ids=["one", "two", "strange"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_printed_grammar_is_one_for_llama_cpp(run: Run, vocabulary: VocabOnly, name: str, labels: list[str]) -> None:
    code, out, err = run("show", name, "--gbnf", "--labels", ",".join(labels))
    sampler = lib.llama_sampler_init_grammar(vocabulary._vocab, out.encode(), b"root")
    assert code == 0 and sampler
    lib.llama_sampler_free(sampler)
    GrammarAutomaton(out)
    grammars = {FORMATS[name].gbnf(asked) for asked in FORMATS[name].questions(labels)}
    if len(grammars) == 1:
        assert (out, err) == (grammars.pop(), []) and not out.startswith("#")
    else:
        assert [line for line in out.splitlines() if line.startswith("# ")] == [f"# {label}" for label in labels]
        assert all(grammar in out for grammar in grammars)
        told = f"{len(labels)} grammars, one per answer; llama.cpp takes one: select it with --labels"
        assert err == [f"bioner-edge: warning: {told}"]


# Its prompt


@pytest.mark.parametrize("name", FORMATS)
def test_a_prompt_is_what_the_template_makes(run: Run, name: str) -> None:
    text = "Aspirin <|end|> eased\nasthma. "
    expected = []
    for asked in FORMATS[name].questions(LABELS):
        messages = FORMATS[name].instruction(asked, {"Disease": "an illness"})
        turns = "".join(f"<|{m['role']}|>{m['content']}" for m in messages) + "<|assistant|>"
        expected.append((", ".join(asked), turns.replace("\ue000text\ue001", text)))
    Path("g.toml").write_text('Disease = "an illness"')
    code, out, err = run("show", name, "--prompt", text, "--guidelines", "g.toml")
    assert (code, err) == (0, [])
    if len(expected) == 1:
        assert out == expected[0][1]
    else:
        assert out == "".join(f"=== {asked}\n{prompt}\n" for asked, prompt in expected)


@pytest.mark.parametrize(
    ("bos", "template", "expected"),
    [
        (1, "{{ messages[-1].content }}", "<s>Aspirin."),
        (1, "{{ bos_token }}{{ messages[-1].content }}", "<s>Aspirin."),
        (None, "{{ messages[-1].content }}", "Aspirin."),
        (None, None, "Aspirin.\n\n"),
    ],
)
def test_a_prompt_has_its_first_token_once(
    monkeypatch: pytest.MonkeyPatch, bos: int | None, template: str | None, expected: str
) -> None:
    def tokenize(text: bytes, special: bool) -> list[int]:
        return [1] * text.startswith(b"<s>") + list(text)

    tokens = {"bos_token": "<s>", "eos_token": ""}
    model = SimpleNamespace(bos=bos, chat_template=template, template_tokens=tokens, tokenize=tokenize)

    @contextmanager
    def loaded(path: Path) -> Iterator[Any]:
        yield model

    monkeypatch.setattr(format_tables, "open_vocabulary", loaded)
    messages = [{"role": "user", "content": "\ue000text\ue001"}]
    bare = SimpleNamespace(questions=lambda labels: [labels], instruction=lambda *_: messages)
    monkeypatch.setitem(format_tables.formats.FORMATS, "bare", bare)
    assert format_tables.render_prompts("bare", ["A"], {}, "Aspirin.") == [(["A"], expected)]


def test_a_vocabulary_alone_evaluates_nothing(vocabulary: VocabOnly) -> None:
    with pytest.raises(RuntimeError):
        vocabulary.new_sequence()
    assert vocabulary.vocabulary_size == 8192 and vocabulary.end_tokens == {0} and vocabulary.bos is None


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"m\.gguf: llama\.cpp cannot read its vocabulary"):
        VocabOnly(tmp_path / "m.gguf")


@pytest.mark.parametrize("arguments", [[], ["--prompt", "Aspirin helps."]])
@pytest.mark.parametrize("name", ["multi_tag", "conv_term"])
def test_an_onnx_model_counts_and_asks_as_its_gguf_does(run: Run, name: str, arguments: list[str]) -> None:
    """The two bundled models are one: their tokens and their prompts are the same."""
    code, ours, told = run("show", name, "--model", "chemdis-9m-onnx", *arguments)
    assert (code, told) == (0, [])
    _, theirs, _ = run("show", name, "--model", "chemdis-9m", *arguments)
    paths = {row: listed.path.name for row, listed in registry.listed_models().items()}
    assert ours == theirs.replace(paths["chemdis-9m"], paths["chemdis-9m-onnx"])
    assert arguments or paths["chemdis-9m-onnx"] in ours


def test_what_a_template_does_to_prompts_is_told_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ strftime_now('%Y') }}<think>"
    fake = SimpleNamespace(chat_template=template, template_tokens={"bos_token": ""}, bos=None, tokenize=lambda *_: [])

    @contextmanager
    def loaded(path: Path) -> Iterator[Any]:
        yield fake

    monkeypatch.setattr(format_tables, "open_vocabulary", loaded)
    code, out, told = run("show", "single_term", "--prompt", "Aspirin helps.")
    assert code == 0 and "<think>" in out
    assert len(told) == 2 and all(line.startswith("bioner-edge: warning: the model's chat template") for line in told)
    assert "writes today's date" in told[0] and "opens a thinking part" in told[1]


def test_a_prompt_that_is_no_text() -> None:
    with pytest.raises(UsageError, match=r"--prompt: lone surrogate U\+DC80 at offset 0"):
        format_tables.render_prompts("multi_tag", LABELS, {}, "\udc80")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "tags"], f"unknown format 'tags'; known: {', '.join(FORMATS)}"),
        (
            ["show", "multi_tag", "--labels", "<"],
            "label '<' cannot be a tag: it must start with a letter and contain no '<', '>', backslash",
        ),
        (["show", "multi_tag", "--labels", "A,A"], "--labels 'A,A': must be distinct names, separated by commas"),
        (["show", "multi_tag", "--labels", "", "--gbnf"], "--labels '': must be distinct names, separated by commas"),
        (
            ["show", "multi_tag", "--gbnf", "--prompt", "x"],
            "--gbnf and --prompt each print one thing alone; give one of them",
        ),
        (["show", "multi_tag", "--prompt", "x", "--model", "a.gguf"], "a.gguf: no such model file"),
        (["show", "multi_tag", "--guidelines", "g"], "--guidelines g: No such file or directory"),
        (["show"], "Missing argument 'NAME'; see bioner-edge formats show --help"),
        (["shwo"], "No such command 'shwo'"),
    ],
)
def test_mistakes(run: Run, arguments: list[str], message: str) -> None:
    code, out, (line,) = run(*arguments)
    assert (code, out) == (2, "")
    assert line.startswith(f"bioner-edge: {message}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line_and_a_closed_pipe_none() -> None:
    command = [sys.executable, "-m", "bioner_edge", "formats", "show", "multi_tag", "--gbnf"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    told = b"bioner-edge: standard output: cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, told)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help(run: Run) -> None:
    assert re.search(r"show .*\n.*check ", run("--help")[1])
