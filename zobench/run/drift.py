"""What a run tells of 16-bit weights that are perturbed in place."""

import torch

from zobench.zo.feedback import PLAIN
from zobench.zo.optimizer import ZOOptimizer


class Drift:
    """Findings of the optimizer's drift meter; one line the first time that updates are too small.

    There are none for weights of 32 bits, with remainders or left clean, or moved otherwise than by
    plain descent, or in steps that are captured, whose coefficients the host does not see.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        plain = isinstance(optimizer, ZOOptimizer) and PLAIN in optimizer.rule.gives
        followed = plain and not optimizer.graph  # type: ignore[attr-defined]
        self._meter = optimizer.engine.drift if followed else None  # type: ignore[attr-defined]
        self._said = False

    def __call__(self) -> dict[str, float]:
        if self._meter is None:
            return {}
        found: dict[str, float] = self._meter.findings()
        if found["drift/update_in_spacings"] < 1.0 and not self._said:
            self._said = True
            print(
                "warning: an update changes a weight of median size by"
                f" {found['drift/update_in_spacings']:.2g} of half its 16-bit spacing, so that"
                " rounding decides what is learnt; arithmetic=exact loses nothing",
                flush=True,
            )
        return found
