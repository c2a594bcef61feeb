"""Messages of transformers while it loads a model: errors in one sentence, no others."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from zobench.errors import UserError


@contextmanager
def in_one_sentence(path: str, attention: str | None) -> Iterator[None]:
    """Turn exceptions of the libraries about bad input into a UserError of one line.

    Damaged files cause exceptions of any type; only a lack of memory is raised unchanged.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        if attention is not None and ("attn" in reason or "ttention" in reason):
            raise UserError(f"model.attention={attention}: refused ({reason})") from error
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.path={path}: needs Python files of its own, which are run only with"
                " model.trust_remote_code=true; read them first"
            ) from error
        if package := _missing_package(str(error), Path(path)):
            raise UserError(
                f"model.path={path}: its tokenizer needs the package {package} (pip install"
                f" {package}), or a tokenizer.json in the folder"
            ) from error
        raise UserError(
            f"model.path={path}: could not be loaded ({reason}); {_way_out(path)}"
        ) from error


def _way_out(path: str) -> str:
    if path.endswith(".gguf"):
        return "download it again if it is cut off, or give a folder"
    return "give a folder or a hub id"


def _missing_package(text: str, folder: Path) -> str | None:
    """The package that a tokenizer of another form needs and that is not installed.

    transformers takes a SentencePiece file for one of tiktoken's where it can read neither.
    """
    pieces = any(folder.glob("*.model")) and not (folder / "tokenizer.json").is_file()
    if pieces and re.search("tok|piece", text, re.IGNORECASE):
        if find_spec("sentencepiece") is None:
            return "sentencepiece"
        if find_spec("google") is None or find_spec("google.protobuf") is None:
            return "protobuf"
    named = re.search(r"pip install ([\w-]+)", text)
    return named[1] if named else None


@contextmanager
def quiet() -> Iterator[None]:
    """No bars, and no table of missing keys: `check_keys` reports them."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
