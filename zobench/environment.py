"""Environment variables that a library of ours would stop at, and its reasons in one line."""

import os
from collections.abc import Callable, Iterator


def refused(prefix: str, take: Callable[[dict[str, str]], object]) -> Iterator[tuple[str, str]]:
    """The variables of a prefix that the library does not take, each with the reason.

    take: raises for a variable that is none, as wandb.Settings().update_from_env_vars does.
    """
    for name in sorted(name for name in os.environ if name.startswith(prefix)):
        try:
            take({name: os.environ[name]})
        except Exception as error:  # of pydantic and of the library's own
            yield name, reason_of(error)


def reason_of(error: Exception) -> str:
    """What a library says, in one line; of a list of pydantic's the first, without the header."""
    listed = getattr(error, "errors", None)
    if callable(listed) and (found := listed()):
        place = ".".join(map(str, found[0].get("loc", ())))
        said = f"{place}: {found[0].get('msg')}"
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return said[:200]
