"""Wrap chat templates of tokenizers that change text around special tokens, so that prompts get the ids of training.

Hugging Face's tokenizers of Llama 2, Mistral and Phi-3 put a space before a text, or before each part of it between
special tokens; some special tokens (Phi-3's) strip the whitespace after them. llama.cpp must do neither, since that
would change documents too. So the template itself writes what such a tokenizer would make of its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date

from bioner_edge.convert.vocabulary.tokenizer_json import Added
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.prompts import DATE, Value, switches

__all__ = ["choose", "wrap"]

# Where a tokenizer puts a space -> the space in Jinja, before a non-empty part `rest`. "every": whatever the part
# starts with; "always" and "first": unless it starts with a space, "first" only before the whole text.
_BLANK = {
    "every": "' '",
    "always": "('' if rest[0] in ' ▁' else ' ')",
    "first": "(' ' if loop.first and rest[0] not in ' ▁' else '')",
    "never": "''",
}
_CUT = "␞"

# {{ '' }} keeps the adjacent tags from stripping the line breaks at both ends.
_WRAPPED = """{% set written %}{{ '' }}TEMPLATE{{ '' }}{% endset %}
{%- set tokens = TOKENS -%}
{%- set stripping = STRIPPING -%}
{%- set cut = namespace(text=written, strips=false) -%}
{%- for token in tokens -%}
    {%- set cut.text = cut.text.replace(token, 'CUT' ~ loop.index0 ~ 'CUT') -%}
{%- endfor -%}
{%- for part in cut.text.split('CUT') -%}
    {%- if loop.index0 % 2 -%}
        {%- set token = tokens[part | int] -%}
        {%- set cut.strips = token in stripping -%}
        {{- token -}}
    {%- else -%}
        {%- set rest = part.lstrip() if cut.strips else part -%}
        {%- if rest -%}
            {{- BLANK ~ rest -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}"""


def wrap(template: str | None, added: Sequence[Added], prefix: str) -> str | None:
    """A template that writes the text of `template` as the tokenizer would change it; `template` itself where it would
    not.

    `prefix` says where the tokenizer puts spaces, a key of the table above.
    """
    stripping = [token.content for token in added if token.rstrip]
    if template is None or (prefix == "never" and not stripping):
        return template
    values = {
        "TEMPLATE": template.removesuffix("\n"),  # Jinja strips one from the end of a template
        "TOKENS": _jinja_list(sorted((token.content for token in added), key=lambda content: -len(content.encode()))),
        "STRIPPING": _jinja_list(stripping),
        "BLANK": _BLANK[prefix],
        "CUT": _CUT,
    }
    before, after = _WRAPPED.split("TEMPLATE")
    before, after = (re.sub("TOKENS|STRIPPING|BLANK|CUT", lambda m: values[m[0]], part) for part in (before, after))
    return before + values["TEMPLATE"] + after


def choose(template: str | None, given: Mapping[str, Value]) -> dict[str, Value]:
    """The values of a template's variables: those `given`, and today's date where the template writes the date.

    With a fixed date a prompt has the same bytes tomorrow, as prefix caches, resumed runs and the fingerprint of a
    verified file require. Raises UsageError for a variable that the template does not have.
    """
    found = switches(template) if template is not None else set()
    for name, value in given.items():
        if name not in found:
            raise UsageError(
                f"--template-option {unknown_name('name', name, sorted(found) or ['none in this template'])}"
            )
        if name == DATE and not _is_date(value):
            raise UsageError(f"--template-option {name}={value}: must be a date, such as 2026-01-31")
    return {**({DATE: date.today().isoformat()} if DATE in found else {}), **given}


def _is_date(value: Value) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _jinja_list(contents: Sequence[str]) -> str:
    """Strings as a Jinja list."""
    return json.dumps(contents, ensure_ascii=False)
