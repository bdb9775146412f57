"""From a format's instruction to a prompt: the model's chat template, with the document's text kept apart.

The template is applied to messages in which a placeholder stands for the text. Cut at the placeholder, the parts
around it may hold special tokens; the text itself never does, so that a document with `<|im_end|>` in it is only text.

A template is rendered as transformers' own renderer does it: the same options, tags, globals, filters and variables.
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
"""What a switch of a template can be set to."""

_GIVEN = {"messages", "tools", "documents", "add_generation_prompt"}  # by the renderer, with tokens
_PROBE = "SystemMessage"
DATE = "strftime_now"  # the function that a template calls for it
_THINKING = re.compile(r"[<\[](/?)((?:\w+:)?(?:think|thinking|thought|reasoning))[>\]]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands before and after the document's text; both may hold the template's special tokens."""

    before: str
    after: str


def build(
    template: str | None,
    messages: Sequence[Message],
    tokens: Mapping[str, str],
    *,
    tell: Callable[[str], None] | None = None,
) -> Prompt:
    """The prompt of a chat template (Jinja, as Hugging Face writes it); without one, contents joined by empty lines.

    `tokens` are what the template calls `bos_token` and `eos_token`; an empty one is not there, so that a template that
    tests whether it is defined finds out. `tell` hears what makes answers worse or different from day to day; without
    it each such thing is a warning, once for a template. Raises ModelError where the template fails or does not write
    the text exactly once.
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
    if opened := _opened(after):
        inside = f"opens a thinking part, {opened}, and the answer is forced inside it"
        notes.append(f"the model's chat template {inside}: tune on such prompts, or convert with --template-option")
    for note in dict.fromkeys(notes):
        tell(note) if tell else _warn(template, note)
    return Prompt(before, after)


def _apply(template: str, messages: list[Message], tokens: Mapping[str, str], notes: list[str]) -> str:
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    try:
        written = _rendered(template, messages, tokens, notes)
    except Exception as error:  # a template is a program of others: it may fail in any way
        if system is None:
            raise ModelError(f"the model's chat template fails: {' '.join(str(error).split())}") from None
    else:
        if system is None or system.strip() in written or _writes_system(template, messages, tokens):
            return written
    # Some families have no system role and fail (Gemma) or leave it out (Phi-3): it then opens the first message.
    first = messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return _apply(template, [first, *messages[2:]], tokens, notes)


def _writes_system(template: str, messages: list[Message], tokens: Mapping[str, str]) -> bool:
    """Whether the system's message gets into a prompt in some form: as JSON, or without what the template cuts off."""
    probe = [messages[0] | {"content": _PROBE}, *messages[1:]]
    return _PROBE in _rendered(template, probe, tokens, [])


def _rendered(template: str, messages: list[Message], tokens: Mapping[str, str], notes: list[str]) -> str:
    def now(format: str) -> str:
        notes.append("the model's chat template writes today's date, so answers may differ from day to day")
        return datetime.now().strftime(format)

    return _compiled(template).render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=True,
        strftime_now=now,
        **{name: token for name, token in tokens.items() if token},
    )


def _opened(after: str) -> str | None:
    """The tag that opens a thinking part which the end of a prompt leaves open; None where there is none."""
    tags = list(_THINKING.finditer(after))
    return tags[-1][0] if tags and not tags[-1][1] else None


@lru_cache(maxsize=8)
def _warn(template: str, note: str) -> None:
    warnings.warn(note, stacklevel=3)


def switches(template: str) -> set[str]:
    """The variables that a template asks for and that nothing else gives it, such as `enable_thinking`, and what it may
    set itself; `strftime_now` where it asks for the date. Raises ModelError for what is no template."""
    environment = _environment()
    try:
        asked = meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateError as error:
        raise ModelError(f"the model's chat template fails: {' '.join(str(error).split())}") from None
    own = {name for name in asked if name.endswith(("_token", "_tokens"))}  # what transformers gives: special tokens
    return asked - own - environment.globals.keys() - _GIVEN


def fix_values(template: str, values: Mapping[str, Value]) -> str:
    """The template with some of its `switches` set; that of `strftime_now` is the day that it tells, as 2026-01-31."""
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}  # Jinja spells them so
    if DATE in written:
        written[DATE] = f"strftime_at({written[DATE]})"
    # The line break is taken off behind a tag, so that the template begins on a line of its own, as it did.
    return "".join(f"{{% set {name} = {value} %}}\n" for name, value in written.items()) + template


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def _environment() -> jinja2.Environment:
    # The options of transformers' own renderer; a template comes with the model, so it runs in a sandbox.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_at"] = _strftime_at
    return environment


class _Generation(Extension):
    """{% generation %}…{% endgeneration %}: what the assistant writes, marked for training.

    It is written as it is, in a scope of its own, as the call block that transformers makes of it has one.
    """

    tags = {"generation"}  # noqa: RUF012 (jinja2's own interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Callable[[], str]) -> str:
        return caller()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja2's own filter spells <, >, & and ' otherwise, for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_at(day: str) -> Callable[[str], str]:
    """A `strftime_now` of one day."""
    return datetime.fromisoformat(day).strftime


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
