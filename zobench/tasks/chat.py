"""Prompts and answers as turns of a chat, written by the tokenizer's own template.

The prompt is a turn of the user, choices and answers follow the template's generation prompt, and
the template alone puts special tokens. A template that knows `enable_thinking` gets false, so that
the answer comes first. One that prints the date of today prints a fixed one: a run is a function of
its settings.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.cells import called
from zobench.tasks.encoding import ids_of
from zobench.tasks.example import Example, Turn
from zobench.tasks.problem import Loaded
from zobench.tasks.shown import brief

NOTE = "prompts are turns of a chat, written by the tokenizer's chat template (task.chat)"

_MARK = "\ue000"  # a letter that no template has
# 26 July 2024, the date that Llama 3's template prints where it is given none
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24"}
_DAY |= {"%A": "Friday", "%a": "Fri", "%H": "12", "%M": "00", "%S": "00"}
_STRFTIME = "".join(f" | replace('{sign}', '{value}')" for sign, value in _DAY.items())
_FIXED_DAY = f"{{%- macro strftime_now(format) -%}}{{{{ format{_STRFTIME} }}}}{{%- endmacro -%}}"


def check_chat(chat: str | bool | None) -> None:
    """Raise UserError unless it is one of the values of `task.chat`."""
    if chat not in (None, True, False, "auto"):
        raise UserError(f"task.chat={chat}: choose auto, true or false")


def chat_of(setting: str | bool | None, loaded: Loaded) -> "Chat | None":
    """The chat template that `task.chat` asks for; None where prompts are plain text.

    `auto` is that of a decoder whose tokenizer has one. Raises UserError where true has none.
    """
    decodes = loaded.interface is Interface.CAUSAL
    if setting and decodes and getattr(loaded.tokenizer, "chat_template", None):
        return Chat(loaded.tokenizer)
    if setting is True and not decodes:
        raise UserError(
            "task.chat=true: masked models and classification heads have no chat; leave it null"
        )
    if setting is True:
        raise UserError(
            "task.chat=true: the model's tokenizer has no chat template; choose a chat model, or"
            " leave task.chat null"
        )
    return None


def turns_in(messages: Sequence[Any], where: str) -> tuple[Turn, ...]:
    """The messages of a conversation, objects with a `role` and a `content`.

    Raises UserError naming the row and the message that is none.
    """
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise UserError(
                f"{where}: messages[{number}] is {called(message)},"
                ' expected {"role": ..., "content": ...}'
            )
        role, content = (message.get(key) for key in Turn._fields)
        for key, value in (("role", role), ("content", content)):
            if not isinstance(value, str):
                raise UserError(
                    f"{where}: messages[{number}].{key} is {called(value)}, expected a text"
                )
        if message.get("tool_calls"):
            raise UserError(
                f"{where}: messages[{number}].tool_calls is not read; write the call into the"
                " content, or remove the row"
            )
        found.append(Turn(str(role), str(content)))
    return tuple(found)


class Chat:
    """The chat template of a tokenizer.

    end: what the template writes after an answer, such as `<|im_end|>`; white space after it is
    left out. ends: the special tokens in it, each of which ends a generated text. stops: the whole
    of it as a stop string, where it has no special token.
    """

    def __init__(self, tokenizer: Any) -> None:
        template: str = tokenizer.get_chat_template()
        self.tokenizer = tokenizer
        self._template = _FIXED_DAY + template if "strftime_now" in template else template
        answered = [Turn("user", "a"), Turn("assistant", _MARK)]
        _, mark, end = self._text(answered, "task.chat", ask=False).rpartition(_MARK)
        if not mark:
            raise UserError("task.chat: this chat template leaves out the answer; set it to false")
        self.end = end.rstrip() or end
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.ends = frozenset(special | {*tokenizer.all_special_ids}) & {*self.ids(self.end)}
        self.stops = (self.end,) if self.end and not self.ends else ()

    def ids(self, text: str) -> list[int]:
        """The tokens (ids) of a text of the template's, which has its special tokens."""
        return ids_of(self.tokenizer, text, special=False)

    def closed(self, example: Example) -> Example:
        """The example with the end of the turn after each choice, which teaches to stop there."""
        return replace(example, choices=tuple(c.strip() + self.end for c in example.choices))

    def written(self, example: Example, room: int | None = None) -> Example:
        """The example with its whole conversation as the prompt, generation prompt included.

        A choice begins with its first letter, since the template sets it off.

        Args:
            room: the most tokens of the prompt and each choice together. What is too long loses its
                oldest turns, except the system's, and then the beginning of the last turn.

        Raises:
            UserError: for turns that the template refuses, and where no letter has room.
        """
        choices = tuple(choice.lstrip() for choice in example.choices)

        def fits(turns: Sequence[Turn]) -> bool:
            text = self._text(turns, example.where)
            return room is None or all(len(self.ids(text + choice)) <= room for choice in choices)

        turns = example.turns if fits(example.turns) else _shortened(example, fits)
        return replace(example, prompt=self._text(turns, example.where), before=(), choices=choices)

    def _text(self, turns: Sequence[Turn], where: str, *, ask: bool = True) -> str:
        """The turns as text; ask: followed by the generation prompt."""
        try:
            text: str = self.tokenizer.apply_chat_template(
                [turn._asdict() for turn in turns],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=ask,
                enable_thinking=False,
            )
        except Exception as error:  # a template can raise anything
            raise UserError(
                f"{where}: the model's chat template refuses these turns: {brief(error, 160)}"
            ) from None
        return text


def _shortened(example: Example, fits: Callable[[Sequence[Turn]], bool]) -> list[Turn]:
    """The most of an example's turns that fits; the last one keeps at least a letter."""
    system = [turn for turn in example.turns if turn.role == "system"]
    others = [turn for turn in example.turns if turn.role != "system"]
    starts = [place for place, turn in enumerate(others) if turn.role == "user"]
    role, last = others[-1]

    def cut(step: int) -> list[Turn]:
        """First one turn of the user less each, and its answer; then one letter less each."""
        if step < len(starts):
            return [*system, *others[starts[step] :]]
        return [*system, Turn(role, last[step - len(starts) + 1 :])]

    steps = range(len(starts) + max(len(last) - 1, 0))
    found = bisect_left(steps, True, key=lambda step: fits(cut(step)))
    if found == len(steps):
        raise UserError(
            f"{example.where}: the chat template and the choice alone are longer than the model or"
            " task.max_length"
        )
    return cut(found)
