"""Texts of the user's inside messages: of bounded length, and with what the eye does not see."""

import unicodedata
from collections.abc import Iterable

_MOST = 60  # letters of one text
_ALL = 160  # letters of a list


def brief(text: object, most: int = _MOST) -> str:
    """The text, of which at most so many letters are left."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 3]}..."


def quoted(text: str) -> str:
    """In quotation marks, with escapes for invisible characters and code points for look-alikes."""
    cut = brief(text)
    return f"{cut!r} ({cut!a})" if _deceives(cut) else repr(cut)


def visible(text: object) -> str:
    """The text itself where it is unambiguous, else as `quoted`."""
    shown = str(text)
    plain = shown.isprintable() and shown == shown.strip() and shown and not {*shown} & {*",'\""}
    return brief(shown) if plain and not _deceives(shown) else quoted(shown)


def listed(names: Iterable[object]) -> str:
    """`a, b, c`, or as many of them as a line holds and how many more there are."""
    every = list(names)
    shown: list[str] = []
    for name in every:
        shown.append(visible(name))
        if sum(map(len, shown)) + 2 * len(shown) > _ALL:
            break
    more = len(every) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def nfc(text: str) -> str:
    """The text with each letter and its accents in one code point, where there is one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def skeleton(text: str) -> str:
    """What is left of a text without case, blanks at its ends and characters without a look.

    Of a text longer than a label, its beginning.
    """
    text = text[:1000]
    seen = unicodedata.normalize("NFKC", text)
    return (
        "".join(c for c in seen if unicodedata.category(c) not in ("Cf", "Cc")).strip().casefold()
    )


def _deceives(text: str) -> bool:
    """Whether accents stand apart from their letters, or two alphabets stand in one text."""
    if text.isascii():
        return False
    if text != nfc(text) or any(map(unicodedata.combining, text)):
        return True
    scripts = {unicodedata.name(c, "").split(" ")[0] for c in text if c.isalpha()}
    return "LATIN" in scripts and bool(scripts & {"CYRILLIC", "GREEK", "ARMENIAN", "FULLWIDTH"})
