"""CurvZO's law (Wang et al. 2026, arXiv 2603.21725): each step perturbs a random set of tensors.

Tensor b takes part with probability pi_b (Poisson); its estimate is divided by pi_b (Horvitz and
Thompson; Definition 3.1), which keeps it unbiased. pi follows scores that are learnt from the loss
difference Delta alone, under a budget that adapts every 20 steps (section 3.5, Eq. 20). State: a
few numbers per tensor; tensors that are not drawn are not touched.

`variant: paper` is reconstructed from the stated formulas: the score is Delta^2 times the mean of
u^2 over the tensor, relative to an average of Delta^2; pi is proportional to sqrt(S), saturating at
1. `variant: released` follows the authors' code as far as known: shares of the energies
||z||^2 / pi^2, times |Delta| relative to its average; pi is proportional to S and cannot saturate.
Its scores settle at S ~ n^(1/3), n the tensor's size, whatever the gradients are (measured with
frozen weights); dividing the energies by n, an option of that code, removes this and leaves S flat.
"""

from collections.abc import Mapping, Sequence

from zobench.zo import noise
from zobench.zo.directions import Drawn
from zobench.zo.feedback import GRAD, Channels, Key
from zobench.zo.moves import Recipe
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.inclusion import saturated, target_ratio, unsaturated
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

_MASK = 2  # stream number of the draw that decides who takes part
_LOW, _HIGH = 0.1, 0.8  # limits of the budget, as shares of the tensors
_ALPHA, _EVERY = 0.7, 20  # weight of the support size in it; steps between its changes
_NEW = 0.1  # weight of the new value in every moving average


class TensorInclusion(Sampler):
    """CurvZO's law: Gaussian directions on a random subset of the slots.

    One direction a step. State: a few numbers per slot, no tensors.

    Formula:
        ```text
        z_b = u_b if tensor b is drawn, with probability pi_b, else 0;  its estimate is c z_b / pi_b
        paper:    pi_b = min(1, tau sqrt(S_b)),  sum_b pi_b = B
                  S_b <- 0.9 S_b + 0.1 c^2 mean(u_b^2) / (average of c^2),  where b was drawn
        released: pi_b = tau S_b;  e_b = |z_b|^2 / pi_b^2
                  S_b <- 0.9 S_b + 0.1 (|c| / average of |c|) e_b / sum e,  where b was drawn
        ```

    Args:
        variant: `paper` (reconstructed from the stated formulas) or `released` (the authors' code).
        ratio: Expected share of the tensors that take part, in (0, 1]; the start of the budget
            where that is adaptive.
        adaptive: Let the budget move every 20 steps.
        uniform: Ignore the scores (the paper's ablation US).
        ht: Divide by the probability of taking part (Horvitz and Thompson), which keeps the
            estimate unbiased; without, the scores precondition the step.
        per_element: Divide the released form's energies by the tensor's size; the paper's form
            always does.

    Raises:
        ValueError: An argument is out of range, or `per_element` goes with the paper's form.

    References:
        Wang et al. 2026, CurvZO, arXiv 2603.21725, Definition 3.1, section 3.5 and Eq. 20.
    """

    most_directions = 1
    weighted = True

    def __init__(
        self,
        *,
        variant: str = "paper",
        ratio: float = 0.4,
        adaptive: bool = True,
        uniform: bool = False,
        ht: bool = True,
        per_element: bool = False,
    ) -> None:
        if variant not in ("paper", "released"):
            raise ValueError(f"sampler.variant={variant}: choose paper or released")
        if not 0.0 < ratio <= 1.0:
            raise ValueError(f"sampler.ratio={ratio}: must be in (0, 1]")
        self.released, self.per_element = variant == "released", per_element
        if per_element and not self.released:
            raise ValueError("sampler.per_element=true: only sampler.variant=released has a choice")
        self.ratio, self.adaptive, self.uniform, self.ht = ratio, adaptive, uniform, ht
        self._step, self._scale = -1, 0.0

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self.scores = [0.01] * len(slots)
        self._place = {slot.id: b for b, slot in enumerate(slots)}

    def begin_step(self, step: int) -> None:
        self._step = step
        n = len(self.slots)
        budget = n * self.ratio
        if self.released:
            budget = min(max(int(budget), 1), n)
        if self.uniform:
            self.pi = [budget / n] * n
        elif self.released:
            self.pi = unsaturated([max(s, 1e-12) for s in self.scores], budget)
        else:
            self.pi = saturated([max(s, 1e-12) ** 0.5 for s in self.scores], budget)
        key = noise.mix(self.seed, step, 0)
        drawn = [noise.uniform(noise.Stream(key, slot.id, _MASK)) for slot in self.slots]
        self.drawn = [u < pi for u, pi in zip(drawn, self.pi, strict=True)]
        if not any(self.drawn):
            self.drawn[self.pi.index(max(self.pi))] = True
        self._energies: dict[int, float] = {}
        self._delta = 0.0

    def recipe(self, slot: Slot) -> Recipe | None:
        return Recipe() if self.drawn[self._place[slot.id]] else None

    def weight(self, slot: Slot) -> float:
        return 1.0 / max(self.pi[self._place[slot.id]], 1e-8) if self.ht else 1.0

    def sums(self, channels: Channels) -> Mapping[Key, float]:
        """|z|^2 of the tensors that took part."""
        return dict.fromkeys(channels.get(GRAD, {}), 1.0) if self._learns else {}

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        grad = channels.get(GRAD, {})
        if not (slots and grad and self._learns):
            return
        [(key, self._delta)] = grad.items()
        if sums:
            energies = sums.energy().tolist()
        else:
            energies = [slot.square_norm(Drawn.normal(key, slot.id)) for slot in slots]
        places = [self._place[slot.id] for slot in slots]
        self._energies = dict(zip(places, energies, strict=True))

    @property
    def _learns(self) -> bool:
        return self.adaptive or not self.uniform

    def end_step(self) -> None:
        """Move the scores of the tensors that took part, and every 20 steps the budget."""
        if self._energies:
            self._learn()
        if self.adaptive and self._step % _EVERY == 0:
            target = target_ratio(self.scores, _LOW, _HIGH, _ALPHA)
            self.ratio = min(max((1 - _NEW) * self.ratio + _NEW * target, _LOW), _HIGH)

    def _learn(self) -> None:
        size = abs(self._delta) if self.released else self._delta**2
        self._scale = (1 - _NEW) * self._scale + _NEW * size
        relative = size / (self._scale + 1e-12)
        if self.released:
            shares = {b: e / max(self.pi[b], 1e-8) ** 2 for b, e in self._energies.items()}
            if self.per_element:
                shares = {b: share / self.slots[b].numel for b, share in shares.items()}
            total = sum(shares.values()) + 1e-12
            signal = {b: relative * share / total for b, share in shares.items()}
        else:
            signal = {b: relative * e / self.slots[b].numel for b, e in self._energies.items()}
        for b, value in signal.items():
            self.scores[b] = (1 - _NEW) * self.scores[b] + _NEW * value

    def metrics(self) -> dict[str, float]:
        """The budget, as a share of the tensors."""
        return {"budget": self.ratio}

    def state_dict(self) -> dict[str, object]:
        return {"scores": list(self.scores), "scale": self._scale, "ratio": self.ratio}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.scores = list(state["scores"])  # type: ignore[call-overload]
        self._scale, self.ratio = state["scale"], state["ratio"]  # type: ignore[assignment]
