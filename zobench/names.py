"""Names that become parts of paths."""

import re

from zobench.errors import UserError

_PLAIN = re.compile(r"\w[\w.+=@ -]*")
_LONGEST = 100  # characters; file systems take 255 bytes, and a run's name has several


def plain_name(key: str, name: str) -> str:
    """The name, if it is valid for a folder; else UserError."""
    if not _PLAIN.fullmatch(str(name)) or len(str(name)) > _LONGEST:
        raise UserError(
            f"{key}={name}: must be a plain folder name of at most {_LONGEST} characters: letters,"
            " digits and . _ - + = @"
        )
    return str(name)
