"""Compares the search directions of single steps with the true gradient of the same batch.

Many papers claim better alignment with the gradient; this measures it. A diagnosed step is the same
step as without the diagnosis: only the gradient is added.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zobench.run.metrics_log import value_of
from zobench.zo.feedback import PLAIN, Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.base import BlockChange, Change, Kind, Rule, SlotChange
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


class Diagnosis:
    """Diagnoses every `every`-th step of an optimizer; `findings` holds the last one's:

    direction_cos2, estimate_cos2, learnt_cos2: cos^2 of the gradient with the directions of the
    estimate (mean over them), with the estimate, with the learnt mean of the law; a random
    direction has 1/d. bias: <estimate, gradient> / |gradient|^2 - 1; error: |estimate - gradient|^2
    / |gradient|^2; averaged over steps these are the estimator's bias along the gradient, and its
    variance plus squared bias. moved: share of the weights that were perturbed. forwards:
    forward and backward passes of diagnoses, which `cost/forwards` does not count. The sampler's
    own `metrics` are added.
    """

    def __init__(self, optimizer: ZOOptimizer, every: int) -> None:
        self.optimizer, self.every = optimizer, every
        self.forwards = 0
        self.findings: dict[str, float] = {}
        self._history: dict[str, list[float]] = {}

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def next_after(self, step: int) -> int:
        """The next step that is due."""
        return step + self.every - step % self.every

    def summary(self) -> dict[str, float]:
        """Mean of every finding over the diagnosed steps, and their forwards."""
        means = {name: sum(found) / len(found) for name, found in self._history.items()}
        return means | {"forwards": self.forwards}

    def watch(self, loss: Callable[[], Tensor], take_step: Callable[[], float]) -> float:
        """Take the step and compare it with the gradient of `loss`; returns the step's loss."""
        slots = self.optimizer.engine.slots
        with torch.enable_grad():
            found = torch.autograd.grad(loss(), [s.parameter for s in slots], allow_unused=True)
        self.forwards += 1
        gradient = dict(zip((slot.id for slot in slots), found, strict=True))
        sampler, rule = self.optimizer.engine.sampler, self.optimizer.rule
        watched = _Watched(rule, gradient, sampler)
        self.optimizer.rule = watched
        try:
            value = take_step()
        finally:
            self.optimizer.rule = rule
        size = sum(slot.numel for slot in slots)
        found_here = watched.findings(size) | dict(sampler.metrics())
        for name, number in found_here.items():
            self._history.setdefault(name, []).append(number)
        self.findings = {f"diagnose/{k}": v for k, v in found_here.items()}
        self.findings["diagnose/forwards"] = self.forwards
        return value

    def restore(self, row: Mapping[str, float | None]) -> None:
        """Restore the findings of a step that was diagnosed before from its row of metrics."""
        own = {k: v for k, v in row.items() if k.startswith("diagnose/")}
        found = {k.removeprefix("diagnose/"): value_of(v) for k, v in own.items()}
        self.forwards = int(found.pop("forwards"))
        found.pop("seconds")
        for name, number in found.items():
            self._history.setdefault(name, []).append(number)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("forwards", "findings", "_history")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


@dataclass(eq=False)
class _Watched(Rule):
    """A rule that compares the step's directions with the gradient before anything moves."""

    rule: Rule
    gradient: Mapping[int, Tensor | None]
    sampler: Sampler
    square: float = 0.0  # of the gradient
    moved: int = 0
    directions: dict[Key, list[float]] = field(default_factory=dict)  # <z, g>, |z|^2
    estimate: list[float] = field(default_factory=lambda: [0.0, 0.0])
    mean: list[float] | None = None

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        for slot in self.sampler.slots:
            self._compare(slot, grad)
        self.rule.begin_step(grad, step=step)

    def state_bytes(self, slot: Slot) -> int:
        return self.rule.state_bytes(slot)

    def past_keys(self) -> Iterable[Key]:
        return self.rule.past_keys()

    def change(
        self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int
    ) -> Change | BlockChange | SlotChange | None:
        return self.rule.change(grad, kind, lr=lr, step=step)

    def _compare(self, slot: Slot, grad: Mapping[Key, float]) -> None:
        found = {key: self.sampler.direction(slot, key) for key in grad}
        drawn = {key: direction for key, direction in found.items() if direction is not None}
        whole, weight = self.gradient[slot.id], self.sampler.weight(slot)
        mean = self.sampler.mean_direction(slot)
        for start, stop in slot.spans():
            device = slot.parameter.device
            g = torch.zeros(stop - start, dtype=torch.float64, device=device)
            if whole is not None:
                g += whole.reshape(-1)[start:stop]
            self.square += float(g @ g)
            estimate = torch.zeros_like(g)
            for key, direction in drawn.items():
                z = direction.draw(start, stop - start, device).double()
                _add(self.directions.setdefault(key, [0.0, 0.0]), z, g)
                estimate.add_(z, alpha=grad[key] * weight)
            _add(self.estimate, estimate, g)
            if mean is not None:
                self.mean = self.mean or [0.0, 0.0]
                _add(self.mean, mean.draw(start, stop - start, device).double(), g)
        self.moved += slot.numel if drawn else 0

    def findings(self, size: int) -> dict[str, float]:
        along, square = self.estimate
        cosines = [self._cos2(*pair) for pair in self.directions.values()]
        found = {
            "direction_cos2": sum(cosines) / max(1, len(cosines)),
            "estimate_cos2": self._cos2(along, square),
            "gradient_norm": self.square**0.5,
            "moved": self.moved / size,
        }
        if self.mean is not None:
            found["learnt_cos2"] = self._cos2(*self.mean)
        if self.square > 0.0:
            found["bias"] = along / self.square - 1.0
            found["error"] = (square - 2.0 * along + self.square) / self.square
        return found

    def _cos2(self, along: float, square: float) -> float:
        product = square * self.square
        return along**2 / product if product > 0.0 else 0.0


def _add(sums: list[float], vector: Tensor, gradient: Tensor) -> None:
    sums[0] += float(vector @ gradient)
    sums[1] += float(vector @ vector)


class DriftSeries:
    """Findings of the optimizer's drift meter; warns once if updates are too small.

    None for 32-bit weights, weights with remainders or left clean, rules other than plain descent,
    and captured steps, whose coefficients the host does not see.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        plain = isinstance(optimizer, ZOOptimizer) and PLAIN in optimizer.rule.gives
        followed = plain and not optimizer.graph  # type: ignore[attr-defined]
        self._meter = optimizer.engine.drift if followed else None  # type: ignore[attr-defined]
        self._warned = False

    def __call__(self) -> dict[str, float]:
        if self._meter is None:
            return {}
        found: dict[str, float] = self._meter.findings()
        if found["drift/update_in_spacings"] < 1.0 and not self._warned:
            self._warned = True
            print(
                "warning: an update changes a weight of median size by"
                f" {found['drift/update_in_spacings']:.2g} of half its 16-bit spacing, so that"
                " rounding decides what is learnt; arithmetic=exact loses nothing",
                flush=True,
            )
        return found
