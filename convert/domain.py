"""In-domain text as the model sees it: prompts about documents, and their answers.

The importance matrix is computed from it, and a trimmed vocabulary is chosen to tokenize it unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bioner_edge import formats
from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.questions import PLAIN, Question, ask
from bioner_edge.text.sentences import split_sentences, unwrap

__all__ = ["Prompting", "documents", "examples"]


@dataclass(frozen=True, slots=True)
class Prompting:
    """How the model will be prompted: everything that no document changes."""

    formats: Sequence[str]
    labels: Sequence[str]
    guidelines: Mapping[str, str]
    unit: str
    template: str | None
    template_tokens: Mapping[str, str]

    def questions(self, format: str, tell: Callable[[str], None] = lambda note: None) -> list[Question]:
        """The questions of a format; `tell` receives notes on what in the prompts makes answers worse."""
        form = formats.get(format)
        return ask(form, self.labels, self.guidelines, self.template, self.template_tokens, tell=tell)


def documents(files: Sequence[Path], tell: Callable[[str], None]) -> Iterator[Document]:
    """The documents of files in any file format that `extract` reads; `tell` receives notes on annotations that are not
    used.

    Raises InputError for text that cannot be read.
    """

    def hear(notice: Notice) -> None:
        if notice.text_lost:
            raise InputError(str(notice))
        tell(str(notice))

    yield from Inputs([str(file) for file in files], hear)


def examples(found: Iterable[Document], asked: Prompting) -> Iterator[tuple[Question, str, str]]:
    """(question, text, answer) for each question about each document.

    The answers are those of the document's annotations; they are empty where it has none. Without formats there are no
    questions, and only the text is given.
    """
    # `assemble.tell_prompt` reports notes on the prompts, once.
    questions = [(formats.get(name), question) for name in asked.formats for question in asked.questions(name)]
    for document in found:
        if not questions:
            yield PLAIN, document.text, ""
            continue
        whole = [replace(document, text=unwrap(document.text))]
        for part in split_sentences(document) if asked.unit == "sentence" else whole:
            for form, question in questions:
                yield question, part.text, form.render(part, question.labels)
