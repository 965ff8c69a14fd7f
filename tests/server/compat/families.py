"""What policies send: conversations written by the chat templates of each family, by hand here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

Turns = Sequence[dict[str, str]]

TEMPLATES: dict[str, str] = {
    "llama3": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{{ bos_token + content }}{% else %}{{ content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for message in messages %}"
        "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}"
        "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = none %}{% endif %}"
        "{% for message in loop_messages %}{% if loop.index0 == 0 and system_message is not none %}"
        "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}{% else %}"
        "{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "mistral-v7": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ '[SYSTEM_PROMPT] ' + message['content'] + '[/SYSTEM_PROMPT]' }}"
        "{% elif message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
        "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
        "eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
    "pocket-policy": (
        "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
        "{{ message['content'] | trim }}{{ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "pocket": (
        "{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] | upper + ']' }}"
        "{{ message['content'] | trim }}{{ '[SEP]' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[ASSISTANT]' }}{% endif %}"
    ),
}

BOS: dict[str, str] = {
    "llama3": "<|begin_of_text|>",
    "chatml": "",
    "gemma": "<bos>",
    "mistral": "<s>",
    "llama2": "<s>",
    "mistral-v7": "<s>",
    "zephyr": "",
    "pocket-policy": "<|begin|>",
    "pocket": "[CLS]",
}
END: dict[str, str] = {
    "llama3": "<|eot_id|>",
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "llama2": "</s>",
    "mistral-v7": "</s>",
    "zephyr": "</s>",
    "pocket-policy": "<|end|>",
    "pocket": "[SEP]",
}
PAD: dict[str, str] = {
    "llama3": "<|end_of_text|>",
    "chatml": "<|endoftext|>",
    "gemma": "<pad>",
    "mistral": "</s>",
    "llama2": "<unk>",
    "mistral-v7": "<pad>",
    "zephyr": "</s>",
    "pocket-policy": "<|pad|>",
    "pocket": "[PAD]",
}
FAMILIES = tuple(TEMPLATES)
WITHOUT_SYSTEM = ("gemma", "mistral")
"""Their templates have no place of its own for it."""

_ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)


def render(family: str, turns: Turns, *, opens_answer: bool = False) -> str:
    """Return a conversation as a family's policy reads it."""
    names: dict[str, Any] = {"bos_token": BOS[family], "eos_token": END[family]}
    return _template(family).render(messages=turns, add_generation_prompt=opens_answer, **names)


@cache
def _template(family: str) -> Template:
    return _ENVIRONMENT.from_string(TEMPLATES[family])


def conversation(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Return contents as turns of user and assistant, in turn, behind a system turn or none."""
    turns = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    turns += [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return turns
