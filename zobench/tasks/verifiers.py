"""Rewards of generated answers that can be checked: GSM8K's number and Countdown's expression."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from zobench.errors import UserError
from zobench.tasks.metrics import same_number

_FINAL = re.compile(r"####\s*(-?[\d,.]*\d)")
_ARITHMETIC = re.compile(r"[0-9+\-*/() ]{1,100}")  # more than Countdown's numbers need
_OPERATIONS: Mapping[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
}


def gsm8k(text: str, answers: Sequence[str], row: Mapping[str, Any]) -> float:
    """1 if the last number after #### is that of an answer, else 0 (Cobbe et al. 2021).

    An answer is a number, or a text that ends with #### and the number.
    """
    del row
    found = _FINAL.findall(text)
    golds = [(_FINAL.findall(answer) or [answer])[-1] for answer in answers]
    return same_number(found[-1], golds) if found else 0.0


def countdown(
    text: str, answers: Sequence[str], row: Mapping[str, Any], *, well_formed: float = 0.0
) -> float:
    """1 if the text is an arithmetic expression over the row's numbers that reaches the target.

    Args:
        text: An expression of whole numbers, + - * / and parentheses; of its first line that part
            which is before the first "=".
        answers: Not read.
        row: Has the columns `numbers`, of which an expression uses each at most once, and `target`.
        well_formed: The reward of an expression over the numbers that misses the target.

    Returns:
        1, `well_formed`, or 0 for any other text.
    """
    del answers
    try:
        numbers, target = Counter(row["numbers"]), Fraction(row["target"])
        if not all(isinstance(n, int | float) and n == int(n) for n in numbers):
            raise TypeError("a text, or a number that no expression has")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            "task.reward=countdown: needs the columns numbers, a list of whole numbers, and target"
        ) from None
    line = text.strip().split("\n", 1)[0].split("=", 1)[0].strip()
    if not _ARITHMETIC.fullmatch(line):
        return 0.0
    used: Counter[int] = Counter()
    try:
        value = _value(ast.parse(line, mode="eval").body, used)
    except (SyntaxError, _NotArithmetic, ZeroDivisionError, RecursionError):
        return 0.0
    if used - numbers:
        return 0.0
    return 1.0 if value == target else well_formed


class _NotArithmetic(Exception):
    """An expression has something other than whole numbers and the four operations."""


def _value(node: ast.expr, used: Counter[int]) -> Fraction:
    """The exact value of an expression; adds its numbers to `used`."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used[node.value] += 1
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left, used), _value(node.right, used)
        return _OPERATIONS[type(node.op)](left, right)
    raise _NotArithmetic


VERIFIERS: Mapping[str, Callable[[str, Sequence[str], Mapping[str, Any]], float]] = {
    "gsm8k": gsm8k,
    "countdown": countdown,
}
