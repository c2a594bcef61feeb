"""Parameters chosen by name."""

import re
from collections.abc import Sequence

from torch import nn

from zobench.errors import UserError
from zobench.tuning.kinds import check_floats, check_text, some


def layers(model: nn.Module, *, patterns: Sequence[str]) -> nn.Module:
    """Train the parameters in whose name one of the regular expressions is found, freeze the rest.

    A classification head is trained if a pattern matches it. Raises UserError for a pattern that is
    no regular expression or matches nothing.
    """
    check_text(model, "layers")
    model.requires_grad_(False)
    parameters = dict(model.named_parameters())
    if not patterns:
        raise UserError(
            f"tuning.patterns=[]: give one or more, for names such as {some(parameters)}"
        )
    for pattern in patterns:
        try:
            found = [p for name, p in parameters.items() if re.search(pattern, name)]
        except re.error as error:
            raise UserError(f"tuning.patterns: {pattern!r} is no regex ({error})") from None
        if not found:
            raise UserError(
                f"tuning.patterns: {pattern!r} matches no parameter; there is {some(parameters)}"
            )
        check_floats(found, "layers")
        for parameter in found:
            parameter.requires_grad_(True)
    return model
