"""Conversations as text, by the chat template of a tokenizer: `chat_template` of the `tokenizer_config.json`, or the
`chat_template.jinja`, beside the `tokenizer.json`. A template is a stranger's program: it runs in Jinja's sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from project.data.tokenizer import LARGEST_CONFIG, TOKENIZER_CONFIG
from project.spec.untrusted import Unreadable, read_bytes, read_json

TEMPLATE = "chat_template.jinja"


class NoConversation(ValueError):
    """Messages that cannot be written as text; the message says why."""


class ChatTemplate:
    """The template in `folder`.

    Raises:
        NoConversation: if there is none, or it is no template.
    """

    def __init__(self, folder: Path) -> None:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        source = template_source(folder)
        if not source:
            raise NoConversation(
                f"needs a chat template to be text, and there is none in {folder} ({TOKENIZER_CONFIG} or {TEMPLATE}); "
                "give data.tokenizer of a chat model, or write messages out as texts"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        self.tokens = template_tokens(folder)
        try:
            self.template = environment.from_string(source[0])
        except TemplateError as error:
            raise NoConversation(f"{folder}: the chat template cannot be read: {error}") from None

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Raises NoConversation, with the template's words, for messages that it does not take."""
        try:
            return self.template.render(messages=messages, add_generation_prompt=False, **self.tokens)
        except Exception as error:  # of whatever kind: it runs a program
            raise NoConversation(f"the chat template does not take it: {str(error).splitlines()[0]}") from None


def template_source(folder: Path) -> list[str]:
    """The text of the template in `folder`, or none. Raises NoConversation for a file that cannot be read."""
    if (folder / TEMPLATE).exists():
        try:
            return [read_bytes(folder / TEMPLATE, folder, LARGEST_CONFIG).decode()]
        except (Unreadable, UnicodeDecodeError) as error:
            raise NoConversation(str(error)) from None
    source = _config(folder).get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {one.get("name"): one.get("template") for one in source if isinstance(one, Mapping)}.get("default")
    return [source] if isinstance(source, str) else []


def template_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that a template may write, by their names in `tokenizer_config.json`."""
    config = _config(folder)
    return {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}


def is_conversation(value: object) -> bool:
    """True for a list of messages, each with a role and a content."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, Mapping) and isinstance(one.get("role"), str) and "content" in one for one in value)
    )


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        content = read_json(folder / TOKENIZER_CONFIG, folder, LARGEST_CONFIG)
    except Unreadable:
        return {}
    return content if isinstance(content, Mapping) else {}


def _text(token: Any) -> str:
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else ""


def _refuse(message: str) -> NoReturn:
    raise NoConversation(message)
