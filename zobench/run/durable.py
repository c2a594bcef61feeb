"""Files that are whole or not there, whatever happens while they are written."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"  # the end of the name of a file that may have been left half written


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """The file holds all that `write` writes, or what it held before; on the disk, not only soon.

    `write` gets a file to write to in order. What it had written is gone when it raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or the names of a folder's files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def crc32_of(path: Path) -> int:
    """CRC-32 of a file, read piece by piece."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            crc = zlib.crc32(piece, crc)
    return crc
