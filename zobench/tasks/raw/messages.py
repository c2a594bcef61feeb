"""Rows of conversations: {"messages": [{"role": ..., "content": ...}, ...]}."""

from collections.abc import Iterator

from zobench.errors import UserError
from zobench.tasks.chat import turns_in
from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field


def shape(row: Row) -> Iterator[Row]:
    """The row with its conversation up to the assistant's last message, which is the answer.

    Raises UserError for messages without a role and a text, and for a conversation whose last
    answer is missing or does not follow a message of the user.
    """
    turns = turns_in(field(row.values, "messages", list, row.where), row.where)
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise UserError(f"{row.where}: no message has the role assistant, whose last is the answer")
    last = len(roles) - 1 - roles[::-1].index("assistant")
    if last == 0 or roles[last - 1] != "user":
        found = "nothing" if last == 0 else f"a message of the role {roles[last - 1]!r}"
        raise UserError(
            f"{row.where}: messages[{last}], the answer, follows {found}, expected one of user"
        )
    yield Row(row.values | {"messages": [t._asdict() for t in turns[: last + 1]]}, row.where)
