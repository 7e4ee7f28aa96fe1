"""A prompt as a chat template, for programs that render dialogues with Jinja: transformers, vLLM."""

from __future__ import annotations

import json
import re
from string import Template

from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer_settings import PROMPT_TEMPLATE_MARK

_SLOT = re.compile(r"\{(\w+)\}")
_VALUES = {"system": "message.content", "question": "message.content", "context": "context"}

# An empty system message is none, and the context belongs to the last question: as in `Example`.
_LAST_QUESTION = "{%- set last_question = messages | selectattr('role', 'equalto', 'user') | list | last %}"
_LOOP = "{%- for message in messages if message.content or message.role != 'system' %}"

_PATTERNS = Template("""\
{{- $start }}
$last_question
$loop
{%- if message.role == 'system' and loop.first %}
{{- $system }}
{%- elif message.role == 'user' and (loop.first or loop.previtem.role != 'user') %}
{{- $user }}
{%- elif message.role == 'assistant' and not loop.first and loop.previtem.role == 'user' %}
{{- message.content + $end }}
{%- else %}
{{- raise_exception('one system message at most, first; then user and assistant in turn') }}
{%- endif %}
{%- endfor %}
""")
# The line end of the last line goes with its block, so what follows stays as it is.
_MESSAGES = Template("""\
$last_question
{%- set filled = namespace(messages=[]) %}
$loop
{%- set content = $user if message.role == 'user' else $system if message.role == 'system' else message.content %}
{%- set filled.messages = filled.messages + [dict(message, content=content)] %}
{%- endfor %}
{%- set messages = filled.messages %}
""")


def jinja_prompt(prompt: Prompt) -> str:
    """The chat template that renders messages as the prompt renders the same dialogue, for generation.

    A context is the template's variable `context`: `chat_template_kwargs` of a request to vLLM, a keyword of
    `apply_chat_template`. A prompt of the tokenizer's own chat template fills its messages, then goes on with that.

    Unlike `Prompt`, these programs look for control tokens in the whole text, so they find those that users write.
    """
    patterns = {key: _expression(pattern) for key, pattern in prompt.patterns.items()}
    with_context, without = patterns["question_with_context"], patterns["question"]
    own = prompt.to_dict().get("chat_template")
    filled = (_PATTERNS if own is None else _MESSAGES).substitute(
        last_question=_LAST_QUESTION,
        loop=_LOOP,
        start=_text(prompt.start),
        system=patterns["system"],
        user=f"({with_context} if context and message is sameas last_question else {without})",
        end=_text(prompt.end_token),
    )
    return f"{PROMPT_TEMPLATE_MARK}\n{filled}{own or ''}"


def _expression(pattern: str) -> str:
    """A pattern as a sum of Jinja strings and variables; what is no text is an error there, never part of a prompt."""
    parts = _SLOT.split(pattern)
    terms = [_VALUES[part] if i % 2 else _text(part) for i, part in enumerate(parts) if part]
    return " + ".join(terms)


def _text(text: str) -> str:
    # Jinja reads the escapes of JSON.
    return json.dumps(text, ensure_ascii=False)
