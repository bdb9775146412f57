"""Questions: a format's prompts about a text, as strings and as token ids.

Extraction, training, the importance matrix, vocabulary trimming and `formats show` all build their prompts here, so
that a model is tuned on exactly what it will be fed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bioner_edge import prompts
from bioner_edge.backends.contract import Spelling
from bioner_edge.formats.contract import Format

__all__ = ["PLAIN", "Question", "ask"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a text: the labels asked for, and the prompt before and after the text.

    Both parts may hold special tokens of the chat template; the text and the answer never do, whatever they contain.
    All are tokenized separately, so that the instruction can be cached and a text never merges with its surroundings.
    """

    labels: list[str]
    before: str
    after: str

    def lacks_bos(self, spelling: Spelling) -> bool:
        """Whether the model expects a BOS token and the chat template writes none."""
        return spelling.bos is not None and spelling.tokenize(self.before.encode(), True)[:1] != [spelling.bos]

    def around(self, spelling: Spelling) -> tuple[list[int], list[int]]:
        """The token ids before the text, starting with BOS if the model expects it, and those after the text."""
        before = spelling.tokenize(self.before.encode(), True)
        if spelling.bos is not None and before[:1] != [spelling.bos]:
            before.insert(0, spelling.bos)
        return before, spelling.tokenize(self.after.encode(), True)

    def token_ids(self, spelling: Spelling, text: str, answer: str = "") -> list[int]:
        """The token ids of the prompt about `text` followed by `answer`, as they are fed."""
        before, after = self.around(spelling)
        return [*before, *_tokenize(spelling, text), *after, *_tokenize(spelling, answer)]


PLAIN = Question([], "", "")
"""No instruction: the text alone, for a model without formats."""


def ask(
    form: Format,
    labels: Sequence[str],
    guidelines: Mapping[str, str],
    template: str | None,
    template_tokens: Mapping[str, str],
    *,
    tell: Callable[[str], None] | None = None,
) -> list[Question]:
    """The questions of a format about a text: one for all labels, or one for each label.

    `template` is the model's chat template in Jinja; `template_tokens` and `tell` are those of `prompts.build`. Raises
    UsageError for labels that the format cannot write and ModelError for a template that cannot be used.
    """
    found = []
    for question_labels in form.questions(labels):
        prompt = prompts.build(template, form.instruction(question_labels, guidelines), template_tokens, tell=tell)
        found.append(Question(question_labels, prompt.before, prompt.after))
    return found


def _tokenize(spelling: Spelling, text: str) -> list[int]:
    return spelling.tokenize(text.encode(), False)
