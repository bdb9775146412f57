"""Text of the user's domain as the model meets it: prompts about documents and the answers to them.

What the importance matrix is computed from, and what a trimmed vocabulary must still spell in whole tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bioner_edge import formats, prompts
from bioner_edge.backends.contract import Backend
from bioner_edge.document import Document
from bioner_edge.errors import InputError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.notice import Notice
from bioner_edge.text.sentences import split_sentences, unwrap

__all__ = ["Prompting", "documents", "examples", "token_ids"]


@dataclass(frozen=True, slots=True)
class Prompting:
    """What the model will be asked: the parts of a prompt that no document changes."""

    formats: Sequence[str]
    labels: Sequence[str]
    guidelines: Mapping[str, str]
    unit: str
    template: str | None
    template_tokens: Mapping[str, str]


def documents(files: Sequence[Path], tell: Callable[[str], None]) -> Iterator[Document]:
    """The documents of files in any format that `extract` reads; `tell` hears of annotations that are not used.

    Raises InputError for text that cannot be read.
    """

    def hear(notice: Notice) -> None:
        if notice.text_lost:
            raise InputError(str(notice))
        tell(str(notice))

    yield from Inputs([str(file) for file in files], hear)


def examples(found: Iterable[Document], asked: Prompting) -> Iterator[tuple[str, str, str, str]]:
    """(before the text, the text, after it, an answer) of each question about each document.

    The answer is about the document's own annotations, and finds nothing where it has none. Without formats there
    is no question, and only the text is given.
    """
    for document in found:
        if not asked.formats:
            yield "", document.text, "", ""
            continue
        whole = [replace(document, text=unwrap(document.text))]
        for part in split_sentences(document) if asked.unit == "sentence" else whole:
            for name in asked.formats:
                form = formats.get(name)
                for labels in form.questions(asked.labels):
                    messages = form.instruction(labels, asked.guidelines)
                    prompt = prompts.build(asked.template, messages, asked.template_tokens, tell=_told_before)
                    yield prompt.before, part.text, prompt.after, form.render(part, labels)


def _told_before(_: str) -> None:
    """What is to be said of the prompts is said once, by `assemble.tell_prompt`."""


def token_ids(backend: Backend, parts: tuple[str, str, str, str]) -> list[int]:
    """An example as it is fed: the template's parts may hold special tokens, text and answer never do."""
    special = (True, False, True, False)
    ids = [token for part, may in zip(parts, special, strict=True) for token in backend.tokenize(part.encode(), may)]
    return ids if backend.bos is None or ids[:1] == [backend.bos] else [backend.bos, *ids]
