"""Tables and details of the formats, to choose one: its questions, answers and grammar.

Everything shown is rendered by the format itself on demand, so that it cannot differ from what the format does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from bioner_edge import formats
from bioner_edge.backends.loading import NEEDS_LLAMA
from bioner_edge.document import Document, Entity
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.formats.contract import TEXT
from bioner_edge.models import registry
from bioner_edge.questions import ask
from bioner_edge.text.surrogates import surrogate_error

if TYPE_CHECKING:
    from bioner_edge.backends.contract import Spelling
    from bioner_edge.models.registry import Manifest

__all__ = [
    "EXAMPLE",
    "LABELS",
    "answers",
    "default_model",
    "description",
    "details",
    "example",
    "grammars",
    "open_vocabulary",
    "overview",
    "render_prompts",
    "tokens",
]

LABELS = ("Chemical", "Disease")
EXAMPLE = Document(
    "example",
    "Naloxone reverses the antihypertensive effect of clonidine. Hypertension fell after clonidine.",
    (
        Entity.at("Chemical", 0, 8),
        Entity.at("Chemical", 49, 58),
        Entity.at("Disease", 60, 72),
        Entity.at("Chemical", 84, 93),
    ),
)
_MAX_LINES, _MAX_CHARACTERS = 3, 110  # of an answer in the table; `details` shows it whole


def description(name: str) -> str:
    """A format in one line. Raises UsageError for an unknown name."""
    first, _, _ = (formats.get(name).__doc__ or "").partition("\n")
    return first.removeprefix(f"{name}: ").rstrip(".")


def example(labels: Sequence[str]) -> Document:
    """The example with the given labels: those it lacks replace, in turn, those of its own that are not given."""
    unknown = (label for label in labels if label not in LABELS)
    name = {label: label if label in labels else next(unknown, None) for label in LABELS}
    return EXAMPLE.with_entities(
        Entity(label, e.fragments) for e in EXAMPLE.entities if (label := name[e.label]) is not None
    )


def answers(name: str, labels: Sequence[str]) -> list[tuple[list[str], str]]:
    """(labels, answer) for each question about the example. Raises UsageError for labels that cannot be written."""
    form = formats.get(name)
    return [(names, form.render(example(labels), names)) for names in form.questions(labels)]


# All of them


def overview() -> Table:
    """A table of all formats; "–" in the columns of the bundled model if there is none. Raises ModelError for a broken
    one."""
    found = default_model()
    table = Table(box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = Text(f"Answers about: {EXAMPLE.text}", "not italic")
    table.add_column("format", no_wrap=True)
    for name in ("answer", "cannot express"):
        table.add_column(name, overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("bundled model", no_wrap=True)
    with open_vocabulary(found[0] if found else None) as vocabulary:
        for name, form in formats.FORMATS.items():
            written = answers(name, LABELS)
            shown = [(f"({', '.join(names)}) " if written[1:] else "") + _shorten(text) for names, text in written]
            count = "–" if vocabulary is None else str(sum(tokens(vocabulary, text) for _, text in written))
            tuned = next((model for model, row in registry.listed_models().items() if name in row.formats), "untuned")
            tuned = tuned if found else "–"
            table.add_row(Text(name), Text("\n".join(shown)), Text(form.CANNOT), count, tuned)
    counted = f"tokens: of all answers about the text, as {found[0].name} counts them.\n" if found else ""
    hints = "(Chemical): one type per answer. ⇥: a tab. …: cut here, whole in `bioner-edge formats show NAME`."
    table.caption = Text(counted + hints, "not italic")
    return table


def _shorten(answer: str) -> str:
    """Cut an answer for the table to a few lines and make tabs visible."""
    lines = answer.split("\n")
    short = "\n".join(lines[:_MAX_LINES])[:_MAX_CHARACTERS]
    return short.replace("\t", "⇥") + ("…" if short != answer else "")


def default_model() -> tuple[Path, Manifest | None] | None:
    """The bundled model, which counts the tokens, and its manifest, both checked; None if none is bundled."""
    return None if registry.default() is None else registry.find(None)


@contextmanager
def open_vocabulary(path: Path | None) -> Iterator[Spelling | None]:
    """Open the vocabulary of a model; None for None. Raises ModelError if the library that reads it is missing."""
    if path is None:
        yield None
    elif path.is_dir():
        from bioner_edge.backends.onnx.vocabulary import OnnxVocabulary

        yield OnnxVocabulary(path)
    else:
        try:
            from bioner_edge.backends.vocab_only import VocabOnly
        except ModuleNotFoundError:
            raise ModelError(f"{path}: {NEEDS_LLAMA}") from None

        with VocabOnly(path) as vocabulary:
            yield vocabulary


def tokens(vocabulary: Spelling, text: str) -> int:
    """Count the tokens of a text, without the end token."""
    return len(vocabulary.tokenize(text.encode(), False))


# One of them


def details(name: str, labels: Sequence[str], guidelines: Mapping[str, str], model: str | None = None) -> str:
    """A format in full: for each question about the example, its messages and the answer.

    Raises UsageError for an unknown name and for labels that it cannot write, ModelError for a `model` that cannot be
    used.
    """
    form = formats.get(name)
    written = answers(name, labels)
    path = registry.find(model)[0] if model is not None else (default_model() or (None,))[0]
    lines = [f"{name}: {description(name)}", f"cannot express: {form.CANNOT}"]
    with open_vocabulary(path) as vocabulary:
        for names, answer in written:
            lines += ["", f"== {', '.join(names)}"]
            for message in form.instruction(names, guidelines):
                lines.append(f"-- {message['role']}\n{message['content'].replace(TEXT, EXAMPLE.text)}")
            count = f", {tokens(vocabulary, answer)} tokens of {path.name}" if vocabulary and path else ""
            lines.append(f"-- answer{count}\n{answer}")
    return "\n".join(lines)


def grammars(name: str, labels: Sequence[str]) -> list[tuple[list[str], str]]:
    """(labels, GBNF) for each question about a document; one pair if all grammars are the same."""
    form = formats.get(name)
    found = [(names, form.gbnf(names)) for names in form.questions(labels)]
    return found if len({text for _, text in found}) > 1 else [(list(labels), found[0][1])]


def render_prompts(
    name: str,
    labels: Sequence[str],
    guidelines: Mapping[str, str],
    text: str,
    model: str | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> list[tuple[list[str], str]]:
    """(labels, prompt) for each question about `text`, with the BOS token if the model is fed one.

    `tell` receives each note of `prompts.build` once. Raises UsageError for labels or a text that cannot be written,
    and ModelError for a model or chat template that cannot be used.
    """
    form = formats.get(name)
    form.questions(labels)  # rejects labels before a model is looked for
    if reason := surrogate_error(text):
        raise UsageError(f"--prompt: {reason}")
    path = registry.find(model)[0] if model is not None else (default_model() or registry.find(None))[0]
    with open_vocabulary(path) as vocabulary:
        assert vocabulary is not None  # there is a path
        found = []
        notes: list[str] = []
        template, tokens = vocabulary.chat_template, vocabulary.template_tokens
        for question in ask(form, labels, guidelines, template, tokens, tell=notes.append):
            first = tokens["bos_token"] if question.lacks_bos(vocabulary) else ""
            found.append((question.labels, f"{first}{question.before}{text}{question.after}"))
        for note in dict.fromkeys(notes):
            tell(note)
        return found
