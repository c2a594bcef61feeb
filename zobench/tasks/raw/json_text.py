"""JSON text to data, with messages that name the place of an error."""

import json
from collections import Counter
from typing import Any

from zobench.errors import UserError
from zobench.tasks.shown import brief, quoted


def parsed(text: str, where: str, *, lines: bool = False) -> Any:
    """The data of the text; UserError for invalid JSON, or an object with a duplicate key.

    lines: name the line of the text, too.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if lines else where
        raise UserError(f"{place}: not valid JSON ({error.msg}, column {error.colno})") from None
    except _Twice as twice:
        raise UserError(f"{where}: an object has the key {quoted(twice.key)} twice") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise UserError(f"{where}: not readable JSON ({brief(error, 80)})") from None


class _Twice(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(
            next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        )
    return found
