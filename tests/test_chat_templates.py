"""Chat templates in the manner of published families, rendered as transformers renders them, to the last blank."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

import pytest

from bioner_edge import prompts
from bioner_edge.backends.scripted import Scripted
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.formats import TEXT

SYSTEM = {"role": "system", "content": 'Tag Chemical & Disease.\n\n- <b>"all"</b> of \'em: α ≥ 1\n'}
USER = {"role": "user", "content": TEXT}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

# Written for this, with what the families' published templates use of Jinja.
TEMPLATES = {
    "SmolLM3: the date, switches, generation blocks": """{# defaults #}
{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" -%}
{%- if messages[0].role == "system" -%}
  {%- set custom = messages[0].content.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "<|im_start|>system\n" -}}
{%- set today = strftime_now("%d-%B-%Y") -%}
{{- "## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: " ~ today ~ "\nReasoning Mode: " + reasoning_mode -}}
{%- if custom %}{{- "\n\n## Custom Instructions\n\n" + custom -}}{% endif -%}
{%- if xml_tools or python_tools or tools -%}{{- "\n### Tools\n" -}}{%- endif -%}
{{- "<|im_end|>\n" -}}
{%- for message in messages -%}
  {%- set content = message.content if message.content is string else "" -%}
  {%- if message.role == "user" -%}
    {{ "<|im_start|>" + message.role + "\n" + content + "<|im_end|>\n" }}
  {%- elif message.role == "assistant" -%}
    {% generation %}{{ "<|im_start|>assistant\n" + content.lstrip("\n") + "<|im_end|>\n" }}{% endgeneration %}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ "<|im_start|>assistant\n" ~ ("" if reasoning_mode == "/think" else "<think>\n\n</think>\n\n") }}
{%- endif -%}
""",
    "Qwen3: namespaces, reversed messages": """{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n' }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string
            and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
    "Llama 3.2: a date that may be given, tools that are none": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
    "Gemma 3: the instruction inside the first turn": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {{ '<start_of_turn>' + message['role'] + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}
""",
    "Phi-3.5: plain blocks on one line": "{% for message in messages %}{% if message['role'] == 'system' and "
    "message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + "
    "message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}",
    "Mistral: a loop left early, tools as JSON": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if loop.index0 > 8 %}{%- break %}{%- endif %}
    {%- if message["role"] == "tool" %}{%- continue %}{%- endif %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] " + (tools | tojson) + "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
""",
    "Granite 3.3: documents, a date, a switch": """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Today's Date: " + strftime_now('%B %d, %Y') + "." %}
    {%- if tools and documents %}
        {%- set system_message = system_message + " Tools and documents." %}
    {%- elif documents %}
        {%- set system_message = system_message + " Documents." %}
    {%- elif thinking %}
        {%- set system_message = system_message + " Think." %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}
{%- if documents %}
    {%- for document in documents %}{{- document['text'] }}{%- endfor %}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
        {%- if controls %}{{- ' ' + controls | tojson }}{%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}
""",
    "OLMo 2: eos where no prompt is asked for": "{{ bos_token }}{% for message in messages %}{% if message['role'] == "
    "'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + "
    "message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n' + "
    "message['content'] + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n' + message['content'] + eos_token }}"
    "{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
    "a JSON of everything": """{% for m in messages %}
    {% if m.role == 'system' %}
{{ {'role': m.role, 'content': m.content} | tojson }}
{{ {'b': [1, 2.5, none, true], 'a': m.content} | tojson(indent=2, sort_keys=true) }}
{{ [m.content] | tojson(ensure_ascii=true) }} {{ {'k': '<>&'} | tojson(separators=(',', ':')) }}
    {% else %}
  {{ m.content }}
    {% endif %}
{% endfor %}
""",
    "a macro with defaults, and generation in a loop": """{%- macro turn(role, content='', end='<|e|>') -%}
<|{{ role }}|>{{ content }}{{ end }}
{%- endmacro -%}
{% for m in messages %}
{{ turn(m['role'], m['content']) }}
{% generation %}
  {% set inner = m.role | upper %}
  {{ inner }}
{% endgeneration %}
[{{ inner is defined }}]
{% endfor %}
{{ turn('assistant', end='') if add_generation_prompt }}""",
    "what is defined": "{% for name, it in [('tools', tools is defined), ('documents', documents is defined), "
    "('none', tools is none and documents is none), ('prompt', add_generation_prompt is true), "
    "('bos', bos_token is defined), ('pad', pad_token is defined), ('date', date_string is defined), "
    "('thinking', enable_thinking is defined), ('now', strftime_now is defined), "
    "('raise', raise_exception is callable), "
    "('system', messages[0].role is defined), ('calls', messages[0].tool_calls is defined)] %}{{ name }}={{ it }} "
    "{% endfor %}{{ undefined_name }}{{ messages | map(attribute='content') | join('|') }}",
    "lines and blanks that Jinja takes away": "  {% if true %}  \n\n  x {% endif %}\n\t{# gone #}\n"
    "{% for m in messages %}\n    {%+ if loop.first %} + {% endif +%}\n{{ m.content -}}\n{% endfor %}\n\n",
    "no system role at all": "{% for m in messages %}{{ raise_exception('no system') if m.role == 'system' }}"
    "<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}",
}  # fmt: skip


class _Day(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> _Day:
        return cls(2031, 2, 3, 4, 5, 6)


@pytest.mark.filterwarnings("ignore:the model's chat template writes today's date")
@pytest.mark.parametrize("tokens", [TOKENS, {"bos_token": "", "eos_token": "</s>"}], ids=["bos", "no bos"])
@pytest.mark.parametrize("messages", [[SYSTEM, USER], [USER]], ids=["system", "user alone"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_as_transformers_renders(
    template: str, messages: list[Any], tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    for module in (theirs, prompts):
        monkeypatch.setattr(module, "datetime", _Day)
    given = {name: token for name, token in tokens.items() if token}  # as special_tokens_map has only those there are
    if "no system" in template and messages[0] is SYSTEM:
        folded = [{"role": "user", "content": f"{SYSTEM['content']}\n\n{TEXT}"}]
    else:
        folded = messages
    (expected,), _ = theirs.render_jinja_template(
        conversations=[folded], chat_template=template, add_generation_prompt=True, **given
    )
    found = prompts.build(template, messages, tokens)
    assert f"{found.before}{TEXT}{found.after}" == expected


def test_a_template_that_transformers_cannot_render_fails() -> None:
    """As there, a token that the vocabulary does not have cannot be joined to text."""
    with pytest.raises(ModelError, match="'bos_token' is undefined"):
        prompts.build("{{ bos_token + messages[0].content }}", [USER], {"bos_token": ""})


# --- Switches

SMOLLM3, QWEN3, LLAMA32 = list(TEMPLATES.values())[:3]


def test_what_a_template_asks_for() -> None:
    """Also what it sets itself, but not in every branch."""
    assert prompts.switches(SMOLLM3) == {"enable_thinking", "strftime_now", "custom", "xml_tools", "python_tools"}
    assert prompts.switches(QWEN3) == {"enable_thinking"}
    assert prompts.switches(LLAMA32) == {
        "custom_tools",
        "tools_in_user_message",
        "date_string",
        "strftime_now",
        "system_message",
    }
    assert prompts.switches("{{ bos_token }}{{ pad_token }}{% set x = namespace() %}{{ range(3) | tojson }}") == set()
    with pytest.raises(ModelError, match="chat template fails: "):
        prompts.switches("{% for %}")


@pytest.mark.parametrize(
    ("template", "values", "parameters"),
    [
        (SMOLLM3, {"enable_thinking": False, "strftime_now": "2031-02-03"}, {"enable_thinking": False}),
        (QWEN3, {"enable_thinking": False}, {"enable_thinking": False}),
        (LLAMA32, {"date_string": "1 \"May\" \\ 2020 🧬 'é'\n%}"}, {"date_string": "1 \"May\" \\ 2020 🧬 'é'\n%}"}),
        (LLAMA32, {"strftime_now": "2031-02-03"}, {}),
        ("  {% if x is true %} {% endif %}\n{{ y + 1 }}{{ messages[0].content }}", *([{"x": True, "y": 2.5}] * 2)),
        ("\n{{ x }}{{ messages[0].content }}", *([{"x": 3}] * 2)),
    ],
)
def test_a_switch_is_what_transformers_takes_as_a_parameter(
    template: str, values: dict[str, Any], parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    monkeypatch.setattr(theirs, "datetime", _Day)
    (expected,), _ = theirs.render_jinja_template(
        conversations=[[USER]], chat_template=template, add_generation_prompt=True, **TOKENS, **parameters
    )
    found = prompts.build(prompts.fix_values(template, values), [USER], TOKENS)
    assert f"{found.before}{TEXT}{found.after}" == expected


def test_a_date_that_is_set_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    template = prompts.fix_values(SMOLLM3, {"strftime_now": "2024-02-29"})
    first = prompts.build(template, [USER], TOKENS, tell=told.append)
    monkeypatch.setattr(prompts, "datetime", _Day)
    assert prompts.build(template, [USER], TOKENS, tell=told.append) == first and "29-February-2024" in first.before
    assert told == []


# --- What is warned of


def notes(template: str) -> list[str]:
    told: list[str] = []
    prompts.build(template, [SYSTEM, USER], TOKENS, tell=told.append)
    return told


@pytest.mark.parametrize("end", ["<think>\n", "<think>", "[THINK]", "</think><think>\n\n", "<seed:think>", "<Thought>"])
def test_a_thinking_part_that_stays_open_is_told(end: str) -> None:
    (told,) = notes("{{ messages[0].content }}<think>x</think>{{ messages[1].content }}" + end)
    assert "opens a thinking part, " in told and "--template-option" in told


@pytest.mark.parametrize("end", ["", "<think>\n\n</think>\n\n", "<thinker>", "a <b", "[THINK][/THINK]"])
def test_a_thinking_part_that_is_closed_is_not(end: str) -> None:
    assert notes("<think>{{ messages[0].content }}{{ messages[1].content }}" + end) == []


def test_the_date_of_the_day_is_told_only_where_it_is_written() -> None:
    (told,) = notes(LLAMA32)
    assert "writes today's date" in told
    assert notes(prompts.fix_values(LLAMA32, {"date_string": "1 May 2020"})) == notes(QWEN3) == []


def test_an_extractor_warns_once() -> None:
    """A format that asks for each type by itself has a prompt for each."""
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>{# of this test alone #}"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        backend = Scripted(lambda ids: [0.0] * 257, chat_template=template)  # type: ignore[arg-type,return-value]
        Extractor(backend, format="single_term", labels=["A", "B"])
    assert [str(w.message) for w in warned if "thinking part" in str(w.message)] == [
        "the model's chat template opens a thinking part, <think>, and the answer is forced inside it: tune on such "
        "prompts, or convert with --template-option"
    ]


# --- What a conversion sets


def test_what_is_chosen_at_conversion() -> None:
    from datetime import date

    from bioner_edge.convert.vocabulary.chat import choose

    today = date.today().isoformat()
    assert choose(QWEN3, {"enable_thinking": False}) == {"enable_thinking": False}
    assert choose(SMOLLM3, {}) in ({"strftime_now": today}, {"strftime_now": date.today().isoformat()})
    assert choose(SMOLLM3, {"strftime_now": "2020-01-31"}) == {"strftime_now": "2020-01-31"}
    assert choose(None, {}) == choose(QWEN3, {}) == {}
    for template, given, told in (
        (QWEN3, {"thinking": False}, "unknown name 'thinking'; known: enable_thinking"),
        ("{{ messages }}", {"x": 1}, "unknown name 'x'; known: none in this template"),
        (None, {"x": 1}, "unknown name 'x'"),
        (SMOLLM3, {"strftime_now": "31.1.2020"}, "strftime_now=31.1.2020: must be a date, such as 2026-01-31"),
        (SMOLLM3, {"strftime_now": 2020}, "must be a date"),
    ):
        with pytest.raises(UsageError, match=told):
            choose(template, given)  # type: ignore[arg-type]
