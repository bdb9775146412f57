"""From a format's instruction to a prompt: the model's chat template, with the document's text kept apart.

The template is applied to messages in which a placeholder stands for the text. Cut at the placeholder, the parts
around it may hold special tokens; the text itself never does, so that a document with `<|im_end|>` in it is only text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import ModelError
from .formats.contract import TEXT, Message

__all__ = ["Prompt", "build"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands before and after the document's text; both may hold the template's special tokens."""

    before: str
    after: str


def build(template: str | None, messages: Sequence[Message], tokens: Mapping[str, str]) -> Prompt:
    """The prompt of a chat template (Jinja, as Hugging Face writes it); without one, contents joined by empty lines.

    `tokens` are what the template calls `bos_token` and `eos_token`. Raises ModelError where the template fails or
    does not write the text exactly once.
    """
    if template is None:
        written = "\n\n".join(m["content"] for m in messages) + "\n\n"
    else:
        written = _apply(template, list(messages), tokens)
    before, found, after = written.partition(TEXT)
    if not found or TEXT in after:
        told = "does not write the user's message exactly once; use another template"
        raise ModelError(f"the model's chat template {told}")
    return Prompt(before, after)


def _apply(template: str, messages: list[Message], tokens: Mapping[str, str]) -> str:
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    try:
        written = _compiled(template).render(messages=messages, add_generation_prompt=True, **tokens)
    except Exception as error:  # a template is a program of others: it may fail in any way
        if system is None:
            raise ModelError(f"the model's chat template fails: {' '.join(str(error).split())}") from None
    else:
        if system is None or system.strip() in written:
            return written
    # Some families have no system role and fail (Gemma) or leave it out (Phi-3): it then opens the first message.
    first = messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return _apply(template, [first, *messages[2:]], tokens)


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    # The options of transformers' own renderer; a template comes with the model, so it runs in a sandbox.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    return environment.from_string(template)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
