"""ConMeZO's cone (Behric et al. 2025, arXiv 2511.02757): directions around a momentum estimate.

z_t = sqrt(d) cos(theta) m_t / ||m_t|| + sin(theta) n_t with n_t ~ N(0, I), and
m_{t+1} = beta_t m_t + (1 - beta_t) c_t z_t; one global norm, d counts all trainable elements. The
paper draws n / ||n|| on the sphere; like the released code we draw n / sqrt(d).

Memory-saving form of the released code: one buffer W = m + k n in the parameter's dtype, so that z
is a multiple of W; two draws of noise a step (MeZO: three). ||m|| is propagated through its
expectation, as released, or measured (`norm: exact`). theta = pi/2 is MeZO, without a buffer.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from zobench.zo.directions import Drawn
from zobench.zo.feedback import GRAD, Channels, Key
from zobench.zo.moves import Direction, Recipe
from zobench.zo.samplers.base import Sampler, over_random_walk
from zobench.zo.slot_state import BufferNoise
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

_START = 1  # stream number of the momentum's random start


@dataclass
class _StepLaw:
    """z = scale * W + free * n and m = W - inside * n at step `step`; rho stands for ||m||.

    walk is what ||m|| would be if the coefficients had nothing to do with the directions.
    """

    step: int = -1
    scale: float = 0.0
    free: float = 1.0
    inside: float = 0.0
    rho: float = 0.0
    walk: float = 0.0
    coefficient: float = 0.0  # c of this step, once it is known


class Cone(Sampler):
    """ConMeZO's law: directions in a cone around a momentum of the estimates.

    One direction a step. State: one buffer per slot in the parameter's dtype (2 or 4 bytes a
    weight).

    Formula:
        ```text
        z_t = sqrt(d) cos(theta) m_t / |m_t| + sin(theta) n_t,  n_t ~ N(0, I)
        m_{t+1} = beta_t m_t + (1 - beta_t) c_t z_t
        ```

    Args:
        steps: Length of the run in steps, for the warm-up of beta.
        theta: Half-angle of the cone in radians, in (0, pi/2]; pi/2 is MeZO, without a buffer.
        beta: Weight of the old momentum after the warm-up, in [0, 1).
        beta_start: The same for the first 1 % of the steps; it then rises to `beta` at 10 % (paper,
            section 3.4). beta_start = beta is no warm-up.
        norm: Of the momentum: `propagated` through its expectation, as released, or `exact`,
            measured.
        init: Of the momentum: `normal` as in the released training code, or `zero` as in its
            synthetic experiment.

    Raises:
        ValueError: `theta`, `norm` or `init` is out of range, or `steps` is None.

    References:
        Behric et al. 2025, ConMeZO, arXiv 2511.02757.
    """

    most_directions = 1

    def __init__(
        self,
        *,
        steps: int | None,
        theta: float = 1.35,
        beta: float = 0.99,
        beta_start: float = 0.1,
        norm: str = "propagated",
        init: str = "normal",
    ) -> None:
        if not 0.0 < theta <= math.pi / 2 + 1e-9:
            raise ValueError(f"sampler.theta={theta}: must be in (0, pi/2]")
        if norm not in ("propagated", "exact") or init not in ("normal", "zero"):
            raise ValueError("sampler.norm is propagated or exact, sampler.init is normal or zero")
        if steps is None:
            raise ValueError("sampler.steps: the warm-up needs the run's length in steps")
        self.steps, self.beta, self.beta_start = steps, beta, beta_start
        self.is_mezo = math.isclose(theta, math.pi / 2)
        self.cos, self.sin = math.cos(theta), math.sin(theta)
        self.exact, self.random_start = norm == "exact", init == "normal"
        self._law = _StepLaw()

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        self.dimension = sum(slot.numel for slot in slots)
        self._buffers: BufferNoise | None = None

    def beta_at(self, step: int) -> float:
        """beta_t of the warm-up, for t = step counted from 0."""
        first, last = 0.01 * self.steps, 0.1 * self.steps
        if step <= first:
            return self.beta_start
        if step > last:
            return self.beta
        progress = (step - first) / (last - first)
        return self.beta - (self.beta - self.beta_start) / (1 + 8 * progress**1.8) ** 3

    def begin_step(self, step: int) -> None:
        """Fold the last step's estimate into m, then lay this step's noise around it."""
        if self.is_mezo or step == self._law.step:
            return
        old = self._law
        if old.step < 0:
            decay, fold = 0.0, float(self.random_start)
            rho = walk = fold * math.sqrt(self.dimension)
            last = self._key(0), _START
        else:
            beta = self.beta_at(old.step)
            gain = (1.0 - beta) * old.coefficient
            decay, fold = beta + gain * old.scale, gain * old.free - beta * old.inside
            across = gain * (old.scale * old.inside + old.free)
            rho = math.hypot(decay * old.rho, across * math.sqrt(self.dimension))
            walk = math.hypot(beta * old.walk, gain * math.sqrt(self.dimension))
            last = self._key(old.step), 0
        if self.exact:
            self._turn(decay, (*last, fold))
            decay, fold, rho = 1.0, 0.0, self._norm()
        law = _StepLaw(step, rho=rho, walk=walk)
        if rho > 1e-8:  # else nothing is known yet, and z is plain noise
            law.scale = math.sqrt(self.dimension) * self.cos / rho
            law.inside, law.free = self.sin / law.scale, 0.0
        self._turn(decay, (*last, fold), (self._key(step), 0, law.inside))
        self._law = law

    def _turn(self, decay: float, *terms: tuple[Key, int, float]) -> None:
        """W <- decay W + sum of scale * noise, in one pass."""
        if self._buffers is None:
            for slot in self.slots:
                slot.buffer("cone", slot.parameter.dtype)
            self._buffers = BufferNoise(self.slots, "cone")
        self._buffers.add([term for term in terms if term[2] != 0.0], decay)

    def _norm(self) -> float:
        """Norm of W over the whole model, summed in float64."""
        square = 0.0
        for slot in self.slots:
            buffer = slot.buffer("cone", slot.parameter.dtype)
            for start, stop in slot.spans():
                square += float(torch.sum(buffer[start:stop].double().square()))
        return math.sqrt(square)

    def _key(self, step: int) -> Key:
        return Key(self.seed, step, 0)

    def state_bytes(self, slot: Slot) -> int:
        return 0 if self.is_mezo else slot.numel * slot.parameter.element_size()

    def recipe(self, slot: Slot) -> Recipe:
        if self.is_mezo or self._law.free:
            return Recipe()
        vector = slot.buffer("cone", slot.parameter.dtype)
        return Recipe(None, self._law.scale, vector=vector)

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        del slots, sums
        self._law.coefficient = sum(channels.get(GRAD, {}).values())

    def mean_direction(self, slot: Slot) -> Direction | None:
        """m of this step: the buffer without the noise laid into it; None while it is zero."""
        if self.is_mezo or self._law.free:
            return None
        vector = slot.buffer("cone", slot.parameter.dtype)
        around = Recipe(vector=vector, sigma=-self._law.inside)
        return Drawn.of(around, self._key(self._law.step), slot.id)

    def metrics(self) -> dict[str, float]:
        return {} if self.is_mezo else over_random_walk(self._law.rho, self._law.walk)

    def state_dict(self) -> dict[str, object]:
        return asdict(self._law)

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._law = _StepLaw(**state)  # type: ignore[arg-type]
