"""From examples to token ids, for each of the three interfaces of a model.

A candidate is scored on its own tokens only, so the last of them is never fed to a model that
predicts the next token; two candidates of one token each then share one context, hence one row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Example


@dataclass(frozen=True)
class Candidate:
    """Tokens that the model reads, tokens that it is scored on, positions that predict them.

    at: one position of the context per target; the last ones where it is empty. types: token
    types (segments) of the context, for models that have them.
    """

    context: tuple[int, ...]
    target: tuple[int, ...]
    at: tuple[int, ...] = ()
    types: tuple[int, ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        length = len(self.context)
        return self.at or tuple(range(length - len(self.target), length))


@dataclass(frozen=True)
class Encoded:
    """One example as candidates; `right` are the numbers of the correct ones.

    prior: the same candidates after a content-free prompt, where scores are calibrated. value: what
    the scores are compared with where that is not the number of a candidate. row: the columns, for
    functions of the user's own.
    """

    candidates: tuple[Candidate, ...]
    gold: int
    right: tuple[int, ...] = ()
    prior: tuple[Candidate, ...] = ()
    value: float | tuple[int, ...] | None = None
    row: Mapping[str, Any] | None = None

    @property
    def expected(self) -> Any:
        """What the scores are compared with."""
        return self.gold if self.value is None else self.value

    @property
    def length(self) -> int:
        return max(len(candidate.context) for candidate in self.candidates)


def ids_of(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """A text's tokens for a decoder, with special tokens before it but none after it.

    An end-of-text token after a prompt would separate it from the choice. special: False for a text
    that has its special tokens, which then gets none.
    """
    if not special:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids: list[int] = tokenizer(text)["input_ids"]
    appended = _appended(tokenizer)
    if appended is None:  # it has no token for the letter that this was tried on
        appended = _tail(tokenizer, text) or []
    ends = appended and ids[-len(appended) :] == appended
    return ids[: len(ids) - len(appended)] if ends else ids


@lru_cache(maxsize=8)
def _appended(tokenizer: Any) -> list[int] | None:
    """The tokens that a tokenizer appends to every text; None where this text does not show it."""
    return _tail(tokenizer, "a")


def _tail(tokenizer: Any, text: str) -> list[int] | None:
    """What follows the tokens of a text itself; None for a text without tokens."""
    whole = tokenizer(text)["input_ids"]
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return list(whole[start + len(bare) :])
    return [] if bare else None


def encode(
    example: Example,
    tokenizer: Any,
    *,
    max_length: int,
    truncation: str,
    start: int | None = None,
    special: bool = True,
) -> Encoded:
    """Tokenise for a decoder; a context longer than `max_length` is an error or cut on the left.

    The choice starts where its tokens part from the prompt's, so a merge across the boundary
    cannot make it empty. Cutting keeps the beginning-of-sequence token and, as in MeZO's code,
    `max_length` tokens of prompt and choice together, including the last one, which is not an
    input. start: a token before a choice after an empty prompt, where such choices may occur.
    special: as in `ids_of`.
    """
    room = max_length if truncation == "left" else max_length + 1  # uncut, the last is not read
    prompt = ids_of(tokenizer, example.prompt, special=special)
    candidates = []
    for choice in example.choices:
        ids = ids_of(tokenizer, example.prompt + choice, special=special)
        split = 0
        while split < min(len(prompt), len(ids)) and prompt[split] == ids[split]:
            split += 1
        target = ids[split:]
        if not target:
            raise UserError(f"{example.where}: the choice {choice!r} has no tokens to score")
        if split == 0 and start is not None:
            ids = [start, *ids]
        elif split == 0:
            raise UserError(
                f"{example.where}: there is no token before the choice {choice!r} to score it;"
                " the prompt is empty or all of it merges with the choice"
            )
        if len(ids) > room:
            _refuse(example, len(ids) - 1, max_length, truncation)
            kept = 1 if ids[0] in (tokenizer.bos_token_id, start) else 0
            if len(target) > max_length - 1:
                raise UserError(f"{example.where}: a choice alone is longer than the model")
            ids = ids[:kept] + ids[len(ids) - max_length + kept :]
        candidates.append(Candidate(tuple(ids[:-1]), tuple(target)))
    return Encoded(tuple(candidates), example.gold, example.right)


def encode_masked(example: Example, tokenizer: Any, *, max_length: int, truncation: str) -> Encoded:
    """Tokenise for a model that fills in masks: as many of them as the choice has tokens.

    A choice is tokenised as a word after a space, as LM-BFF does, wherever the mask stands.
    Cutting keeps the first token (<cls> or <s>) and the end.
    """
    mask = tokenizer.mask_token_id
    candidates = []
    for choice in example.choices:
        target = tokenizer(" " + choice.strip(), add_special_tokens=False)["input_ids"]
        if not target:
            raise UserError(f"{example.where}: the choice {choice!r} has no tokens to score")
        masks = tokenizer.mask_token * len(target)
        ids = tokenizer(example.prompt.rstrip(" ") + masks + example.after)["input_ids"]
        if len(ids) > max_length:
            _refuse(example, len(ids), max_length, truncation)
            ids = ids[:1] + ids[len(ids) - max_length + 1 :]
        at = tuple(place for place, token in enumerate(ids) if token == mask)
        if len(at) != len(target):
            raise UserError(
                f"{example.where}: {len(target)} masks were put in and {len(at)} are left of them;"
                " the text holds a mask token of its own, or was cut before the mask"
            )
        candidates.append(Candidate(tuple(ids), tuple(target), at))
    return Encoded(tuple(candidates), example.gold, example.right)


def encode_classes(
    example: Example, tokenizer: Any, *, max_length: int, truncation: str
) -> Encoded:
    """Tokenise for a classification head: one text, or a pair (prompt, after).

    A candidate's target is the number of its class. Cutting takes tokens off the end of the
    longer text, as LOREN's and most GLUE code does.
    """
    pair = (example.prompt, example.after) if example.after else (example.prompt,)
    whole = tokenizer(*pair)
    if len(whole["input_ids"]) > max_length:
        _refuse(example, len(whole["input_ids"]), max_length, truncation, "cut it")
        side, tokenizer.truncation_side = tokenizer.truncation_side, "right"  # not the folder's
        whole = tokenizer(*pair, truncation="longest_first", max_length=max_length)
        tokenizer.truncation_side = side
    ids, types = tuple(whole["input_ids"]), tuple(whole.get("token_type_ids", ()))
    if not ids:
        raise UserError(f"{example.where}: the text has no tokens")
    classes = range(len(example.choices))
    candidates = tuple(Candidate(ids, (number,), types=types) for number in classes)
    return Encoded(candidates, example.gold, example.right)


def check_distinct(example: Example, encoded: Encoded) -> None:
    """Raise UserError where two choices have the same tokens, and hence the same scores."""
    seen: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    for number, candidate in enumerate(encoded.candidates):
        other = seen.setdefault((candidate.context, candidate.target), number)
        if other != number:
            raise UserError(
                f"{example.where}: the choices {example.choices[other]!r} and"
                f" {example.choices[number]!r} are the same tokens to this tokenizer; give"
                " task.choices with different tokens"
            )


def _refuse(
    example: Example, length: int, most: int, truncation: str, way_out: str = "keep its end"
) -> None:
    if truncation == "error":
        raise UserError(
            f"{example.where}: the prompt takes {length} tokens, the model"
            f" {most}; set task.truncation=left to {way_out}"
        )
