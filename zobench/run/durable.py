"""Atomic, durable file writes: a file is complete or absent, even after a crash."""

import os
import zlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from zobench.run.fence import fence_of


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace the file's content by what `write` writes, synced to disk; all of it or nothing.

    If `write` raises, the old content stays. If the claim on the folder is lost, the process ends.
    """
    fence = fence_of(path.parent)
    temporary = fence.place(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        fence.put(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def renewed(path: Path, content: bytes) -> FileIO:
    """A new unbuffered file of that name that begins with the content, to append to.

    Another process that has the old file open no longer writes to this one.
    """
    fence = fence_of(path.parent)
    place = fence.place(path)
    file = FileIO(place, "w")
    try:
        if file.write(content) != len(content):
            raise OSError(f"{path}: not all of {len(content)} bytes were written")
        os.fsync(file.fileno())
        fence.put(place, path)
    except BaseException:
        file.close()
        place.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return file


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
