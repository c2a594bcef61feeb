"""A file's text, gzipped or not."""

import codecs
import gzip
import zlib
from pathlib import Path

from zobench.errors import UserError


def text_of(path: Path, encoding: str = "utf-8") -> str:
    """A file's text, gzipped or not; UserError where it is neither or of another encoding."""
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        data = data.removeprefix(codecs.BOM_UTF8)  # spreadsheets put this byte-order mark first
        return data.decode(encoding)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a readable gzip file ({error})") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not {encoding.upper()} text") from None
