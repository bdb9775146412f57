"""Build prompts: apply the model's chat template to a format's instruction, with the document's text kept apart.

The template is applied to messages with a placeholder for the text, and its output is cut there. The parts around the
placeholder may hold special tokens; the text never does, so that `<|im_end|>` in a document is only text.

Templates are rendered as transformers does: with the same options, tags, globals, filters and variables.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bioner_edge.errors import ModelError
from bioner_edge.formats.contract import TEXT, Message

__all__ = ["DATE", "Prompt", "Value", "build", "fix_values", "switches"]

Value = bool | int | float | str
"""The types of a template switch."""

_GIVEN = {"messages", "tools", "documents", "add_generation_prompt"}  # by the renderer, besides special tokens
_PROBE = "SystemMessage"
DATE = "strftime_now"  # the function that a template calls for the date
_THINKING = re.compile(r"[<\[](/?)((?:\w+:)?(?:think|thinking|thought|reasoning))[>\]]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt before and after the document's text; both parts may hold the template's special tokens."""

    before: str
    after: str


def build(
    template: str | None,
    messages: Sequence[Message],
    tokens: Mapping[str, str],
    *,
    tell: Callable[[str], None] | None = None,
) -> Prompt:
    """Render the prompt of a chat template (Jinja, as on Hugging Face); without one, join contents by empty lines.

    `tokens` are the template's `bos_token` and `eos_token`; an empty one is left undefined, since templates test for
    that. `tell` receives notes about what makes answers worse or different from day to day; without it each is a
    warning, once per template. Raises ModelError if the template fails or does not write the text exactly once.
    """
    notes: list[str] = []
    if template is None:
        written = "\n\n".join(m["content"] for m in messages) + "\n\n"
    else:
        written = _apply(template, list(messages), tokens, notes)
    before, found, after = written.partition(TEXT)
    if not found or TEXT in after:
        message = "does not write the user's message exactly once; use another template"
        raise ModelError(f"the model's chat template {message}")
    if tag := _open_thinking_tag(after):
        message = f"opens a thinking part, {tag}, and the answer is forced inside it"
        notes.append(f"the model's chat template {message}: tune on such prompts, or convert with --template-option")
    for note in dict.fromkeys(notes):
        tell(note) if tell else _warn(template, note)
    return Prompt(before, after)


def _apply(template: str, messages: list[Message], tokens: Mapping[str, str], notes: list[str]) -> str:
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    try:
        written = _render(template, messages, tokens, notes)
    except Exception as error:  # a template is someone else's program and may fail in any way
        if system is None:
            raise ModelError(f"the model's chat template fails: {' '.join(str(error).split())}") from None
    else:
        if system is None or system.strip() in written or _writes_system(template, messages, tokens):
            return written
    # Some families have no system role and fail (Gemma) or drop the message (Phi-3): it then opens the user's message.
    first = messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return _apply(template, [first, *messages[2:]], tokens, notes)


def _writes_system(template: str, messages: list[Message], tokens: Mapping[str, str]) -> bool:
    """Whether the system message reaches the prompt in some form: as JSON, or trimmed by the template."""
    probe = [messages[0] | {"content": _PROBE}, *messages[1:]]
    return _PROBE in _render(template, probe, tokens, [])


def _render(template: str, messages: list[Message], tokens: Mapping[str, str], notes: list[str]) -> str:
    def now(format: str) -> str:
        notes.append("the model's chat template writes today's date, so answers may differ from day to day")
        return datetime.now().strftime(format)

    return _compile(template).render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=True,
        strftime_now=now,
        **{name: token for name, token in tokens.items() if token},
    )


def _open_thinking_tag(after: str) -> str | None:
    """The tag of a thinking part that is still open at the end of a prompt, or None."""
    tags = list(_THINKING.finditer(after))
    return tags[-1][0] if tags and not tags[-1][1] else None


@lru_cache(maxsize=8)
def _warn(template: str, note: str) -> None:
    warnings.warn(note, stacklevel=3)


def switches(template: str) -> set[str]:
    """The variables of a template that the renderer does not set, such as `enable_thinking`, even if the template may
    set them itself; `strftime_now` if it writes the date. Raises ModelError for an invalid template."""
    environment = _environment()
    try:
        variables = meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateError as error:
        raise ModelError(f"the model's chat template fails: {' '.join(str(error).split())}") from None
    special = {name for name in variables if name.endswith(("_token", "_tokens"))}  # set by transformers
    return variables - special - environment.globals.keys() - _GIVEN


def fix_values(template: str, values: Mapping[str, Value]) -> str:
    """Set some `switches` of a template; the value of `strftime_now` is the day that it returns, such as 2026-01-31."""
    literals = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}  # as in Jinja
    if DATE in literals:
        literals[DATE] = f"strftime_at({literals[DATE]})"
    # Jinja removes the line break behind a tag, so the template still begins on a line of its own.
    return "".join(f"{{% set {name} = {value} %}}\n" for name, value in literals.items()) + template


@lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def _environment() -> jinja2.Environment:
    # The options of transformers' renderer; a template comes with the model, so it runs in a sandbox.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_at"] = _strftime_at
    return environment


class _Generation(Extension):
    """{% generation %}…{% endgeneration %}: what the assistant writes, marked for training.

    It is rendered unchanged, in a scope of its own: transformers makes a call block of it, which has one.
    """

    tags = {"generation"}  # noqa: RUF012 (jinja2's own interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Callable[[], str]) -> str:
        return caller()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; jinja2's own filter escapes <, >, & and ' for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_at(day: str) -> Callable[[str], str]:
    """A `strftime_now` that always returns one day."""
    return datetime.fromisoformat(day).strftime


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
