"""Keeps secrets out of run folders and logs: rejects them in settings, redacts them in output."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from zobench.errors import UserError
from zobench.nested import nodes

KEY = re.compile(r"((api|access|private)_?key|token|secret|password|credentials)$", re.I)
_TOKEN = re.compile(  # of Hugging Face, W&B, GitHub, AWS, OpenAI and the like
    r"\bhf_[A-Za-z0-9]{16,}|\bwandb_v\d_\w{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bsk-[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{40}(?![0-9a-fA-F])")  # an older W&B key
_COMMIT = re.compile(r"(revision|commit|sha)$")  # keys whose values also are 40 hex digits
_SHORTEST = 8  # characters of a value that could be a secret


class Secret(UserError):
    """A setting looks like a secret; the message names its key."""


def refuse_secrets(settings: Mapping[str, Any]) -> None:
    """Raise Secret for a setting that looks like one."""
    for key, value in nodes(settings):
        if isinstance(value, str):
            _refuse(key, value)


def refuse_in_arguments(arguments: Sequence[str]) -> None:
    """Raise Secret for a command line with a secret; Hydra would write it to a sweep's folder."""
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals:
            _refuse(key.lstrip("+~"), value)


def redacted(text: str) -> str:
    """The text without secrets of the environment and texts that look like a token."""
    for value in sorted(_environment(), key=len, reverse=True):
        text = text.replace(value, "[secret]")
    return _TOKEN.sub("[secret]", text)


class Redacted:
    """A text stream that redacts what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _refuse(key: str, text: str) -> None:
    named = KEY.search(key.rpartition(".")[2]) and len(text) >= _SHORTEST
    known = _TOKEN.search(text) or any(value in text for value in _environment())
    if named or known or (_HEX.search(text) and not _COMMIT.search(key)):
        raise Secret(
            f"{key}: looks like a secret, and settings are written to run folders; put it into the"
            " environment (WANDB_API_KEY, HF_TOKEN), or log in once (wandb login, hf auth login)"
        )


def _environment() -> set[str]:
    """Values of environment variables whose names mark secrets."""
    named = {value for name, value in os.environ.items() if KEY.search(name)}
    return {value for value in named if len(value) >= _SHORTEST}
