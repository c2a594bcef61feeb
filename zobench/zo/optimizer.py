"""ZOOptimizer: a sampler, an estimator and a rule behind the face of a torch optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from zobench.zo.engine import Engine
from zobench.zo.estimators.base import Estimator
from zobench.zo.feedback import GRAD
from zobench.zo.ledger import Record
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import slots_of


class ZOOptimizer(torch.optim.Optimizer):
    """Minimises a loss by forward evaluations only.

    named_parameters: (name, parameter) pairs, such as `model.named_parameters()`; those that
        require a gradient are trained. A direction depends on the names, not on their order.
    lr: learning rate; eps: perturbation radius. Both live in `param_groups`, where torch's
        learning-rate schedulers find them.
    seed: names the run's noise; the global random state is neither read nor changed.

    Raises ValueError when the parts do not fit: feedback that the estimator does not give, or more
    directions a step than the sampler draws.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        lr: float,
        eps: float,
        sampler: Sampler,
        estimator: Estimator,
        rule: Rule,
        seed: int = 0,
    ) -> None:
        if lr < 0.0 or eps <= 0.0:
            raise ValueError(f"lr={lr}, eps={eps}: lr must not be negative, eps must be positive")
        missing = (sampler.needs | {GRAD}) - estimator.emits
        if missing:
            raise ValueError(
                f"sampler {type(sampler).__name__} and rule {type(rule).__name__} need the feedback"
                f" {sorted(missing)}, which estimator {type(estimator).__name__} does not give"
            )
        most = sampler.most_directions
        if most is not None and estimator.directions > most:
            raise ValueError(
                f"sampler {type(sampler).__name__} draws at most {most} direction a step, estimator"
                f" {type(estimator).__name__} asks for {estimator.directions}"
            )
        slots = slots_of(named_parameters)
        super().__init__([slot.parameter for slot in slots], {"lr": lr, "eps": eps})
        self.engine = Engine(slots, sampler, seed)
        self.estimator = estimator
        self.rule = rule
        self.steps = 0
        self.record: Record | None = None  # of the last step, for a ledger
        self._share_buffers()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float]) -> float:  # type: ignore[override]
        """One step; `closure` evaluates the loss of one batch, always the same within a step.

        Returns the estimator's loss. Raises zobench.zo.engine.Diverged when a loss is not finite,
        with the weights as they were before the step.
        """
        group = self.param_groups[0]
        feedback = self.engine.evaluate(
            self.estimator, lambda: float(closure()), step=self.steps, eps=group["eps"]
        )
        self.engine.update(feedback, self.rule, step=self.steps, lr=group["lr"])
        self.steps += 1
        grad = tuple(feedback.channels[GRAD].values())
        self.record = Record(group["lr"], tuple(self.engine.losses), grad)
        return feedback.loss

    def replay(self, record: Record) -> None:
        """Take the step that a ledger record describes: same bits, no forward pass.

        Raises ValueError when the record belongs to other settings than this optimizer's.
        """
        self.param_groups[0]["lr"] = record.lr
        losses, forwards = iter(record.losses), self.engine.forwards
        self.step(lambda: next(losses))
        self.engine.forwards = forwards
        if self.record != record:
            raise ValueError(f"the ledger's step {self.steps - 1} is not one of these settings")

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that the next step depends on."""
        return {
            "steps": self.steps,
            "forwards": self.engine.forwards,
            "groups": [{"lr": g["lr"], "eps": g["eps"]} for g in self.param_groups],
            "buffers": {slot.name: dict(slot.buffers) for slot in self.engine.slots},
            "sampler": self.engine.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the weights are the caller's to restore."""
        self.steps, self.engine.forwards = state["steps"], state["forwards"]
        for group, saved in zip(self.param_groups, state["groups"], strict=True):
            group.update(saved)
        for slot in self.engine.slots:
            buffers = state["buffers"][slot.name]
            slot.buffers = {k: v.to(slot.parameter.device, copy=True) for k, v in buffers.items()}
        self.engine.sampler.load_state_dict(state["sampler"])
        self._share_buffers()

    def _share_buffers(self) -> None:
        """Show the slots' buffers as torch's `state`, so that tools count and find them."""
        for slot in self.engine.slots:
            self.state[slot.parameter] = slot.buffers
