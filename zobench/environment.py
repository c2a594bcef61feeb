"""Environment variables that a library rejects, and its reasons in one line."""

import os
from collections.abc import Callable, Iterator


def refused(prefix: str, take: Callable[[dict[str, str]], object]) -> Iterator[tuple[str, str]]:
    """The variables with this prefix that `take` rejects by raising, each with the reason."""
    for name in sorted(name for name in os.environ if name.startswith(prefix)):
        try:
            take({name: os.environ[name]})
        except Exception as error:  # of pydantic or the library
            yield name, reason_of(error)


def reason_of(error: Exception) -> str:
    """A library's error in one line; the first error of a pydantic list."""
    listed = getattr(error, "errors", None)
    if callable(listed) and (found := listed()):
        place = ".".join(map(str, found[0].get("loc", ())))
        return f"{place}: {found[0].get('msg')}"[:200]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
