"""Control flow that looks at values, under vmap: it may, as long as all rows say the same.

A language model asks whether its attention mask hides anything at all, and takes a shorter way if
not. vmap cannot follow one row that way and another row the other; rows that agree it can.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Split(Exception):
    """Rows of a vmapped computation differ in a condition; `answers` has it for each row."""

    def __init__(self, answers: Sequence[bool]) -> None:
        super().__init__(f"the rows of one batch go two ways: {answers}")
        self.answers = answers


class OneAnswer(TorchFunctionMode):
    """Inside of it the truth of a vmapped scalar is what all rows say; else Split is raised."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not Tensor.__bool__:
            return func(*args, **(kwargs or {}))
        answers = torch.func.debug_unwrap(args[0]).flatten().bool().tolist()
        if len(set(answers)) > 1:
            raise Split(answers)
        return answers[0] if answers else func(*args)
