"""A file's text, gzipped or not, and its lines."""

import codecs
import gzip
import zlib
from pathlib import Path

from zobench.errors import UserError

_GZIP = b"\x1f\x8b"
_LAYERS = 3  # times that a file may be gzipped
_MARKS = (  # byte-order marks of other encodings than UTF-8; the longer ones first
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_OTHERS = (  # how files begin that are no text, and what to do with them
    (b"PK\x03\x04", "a zip archive or a spreadsheet: unpack it, or export it as CSV"),
    (b"PAR1", "a parquet file: give its name the ending .parquet"),
    (b"\xd0\xcf\x11\xe0", "an Excel file: export it as CSV"),
    (b"BZh91AY&SY", "compressed by bzip2: unpack it"),
    (b"\xfd7zXZ\x00", "compressed by xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (b"%PDF-", "a PDF: export its rows as CSV"),
    (b"SQLite format 3\x00", "an SQLite database: export its rows as CSV"),
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS, not the data: git lfs pull"),
)
_ENCODINGS = ("cp1252", "latin-1", "utf-16", "gb18030")  # what texts of others are mostly in


def text_of(path: Path, encoding: str = "utf-8") -> str:
    """A file's text; UserError where it is of another encoding, or no text at all.

    A gzipped file is known by its ending or by its first bytes.
    """
    data = path.read_bytes()
    try:
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        for _ in range(_LAYERS):
            if data.startswith(_GZIP):
                data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a readable gzip file ({error})") from None
    for start, what in _OTHERS:
        if data.startswith(start):
            raise UserError(f"{path}: this is {what}")
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    if not wide and (other := _other_encoding(data)):
        raise UserError(
            f"{path}:1: this is {other.upper()} text: +task.source.encoding={other} reads it"
        )
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode(encoding).removeprefix("\ufeff")  # spreadsheets put this mark first
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not {encoding.upper()} text; {_way(encoding)}") from None
    except UnicodeError as error:  # a codec's own, such as UTF-16 without its mark
        raise UserError(
            f"{path}: not {encoding.upper()} text ({error}); {_way(encoding)}"
        ) from None


def _way(failed: str) -> str:
    """How to name the encoding, with those that have not failed."""
    failed_too = codecs.lookup(failed).name
    first, *others = [name for name in _ENCODINGS if codecs.lookup(name).name != failed_too]
    return f"+task.source.encoding={first} (or {', '.join(others)}, ...) sets it; iconv converts it"


def lines_of(text: str) -> list[str]:
    """The lines, ended by \\n or \\r\\n, or by \\r where there is no other end.

    str.splitlines cuts at characters that texts hold, such as U+2028.
    """
    if "\n" not in text:
        return text.split("\r")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _other_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark or by the zeros in every other byte."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        head = data[:200]
        if len(head) > 3 and not any(head[first::2]) and all(head[1 - first :: 2]):
            return name
    return None
