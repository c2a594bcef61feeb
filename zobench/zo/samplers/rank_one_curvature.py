"""LOREN's law (Seung et al. 2026, arXiv 2511.07971): noise shaped by a damped rank-one curvature.

z = H^{-1/2} u, u ~ N(0, I), with one learnt vector a per tensor. With q = |a|^2, s = sqrt(rho + q)
and root = +1 (principal) or -1 (reflection):

* form `rows` (paper): H = I_m kron (rho I_n + a a^T) on an m x n matrix; each row of U has its own
  p = <u, a>, and Z = (U - c p a^T) / sqrt(rho), c = (1 - root sqrt(rho) / s) / q.
* form `tiled` (released code): a is repeated over the rows and one rank-one term acts on the whole
  flattened tensor; q counts all rows, and the scale 1 / sqrt(rho) is dropped.

a <- a - lr_cov eps^2 sum_k w_k grad_a log p(z_k), over the evaluated directions and under the a
they were drawn with; `tiled` takes sqrt(rho) times that score, as released. A vector is one row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo.directions import Drawn
from zobench.zo.feedback import POLICY, Channels, Key
from zobench.zo.moves import Direction, Recipe
from zobench.zo.passes.apply import spans
from zobench.zo.samplers.base import Sampler, over_random_walk
from zobench.zo.slot_state import SlotVectors
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

_START = 1  # stream number of a's random start


@dataclass(frozen=True)
class Tiled(Direction):
    """u - t pull, the pull repeated over the rows, t = <u, a> over the whole tensor.

    Computed in the dtype of `pull`, which is a multiple of a.
    """

    noise: Drawn
    pull: Tensor
    dot: Tensor

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        width = self.pull.numel()
        first, last = start // width, -(-(start + count) // width)
        flat = self.noise.draw(first * width, (last - first) * width, device)
        rows = flat.to(self.pull.dtype).view(-1, width).sub_(self.dot * self.pull)
        return rows.view(-1)[start - first * width :][:count]


class _Laws:
    """The laws of slots on one device and in one dtype: numbers of each slot, from its vector a.

    grad_a log p = score * (U^T p - (inner + energy * |p|^2) a).
    """

    def __init__(self, slots: Sequence[Slot], starts: Sequence[Tensor], tiled: bool) -> None:
        self.vectors = vectors = SlotVectors(slots, "curvature", starts)
        numels = torch.tensor([slot.numel for slot in slots], device=vectors.all.device)
        self.rows = numels // vectors.lengths
        self.copies = self.rows if tiled else torch.ones_like(self.rows)  # of a in one term
        self.walk = torch.zeros(len(slots), dtype=torch.float64, device=vectors.all.device)

    def renew(self, rho: float, sign: float, factor: float) -> None:
        """From today's a. factor: of the scores."""
        vectors, a = self.vectors, self.vectors.all
        square = vectors.sums(a.double().square()) * self.copies
        ratio = sign * math.sqrt(rho) / torch.sqrt(rho + square)
        self.energy = torch.where(square > 0.0, (1.0 - ratio) / square, 0.0)  # a = 0: plain noise
        self.score = -ratio / math.sqrt(rho) * factor
        self.inner = torch.where(square > 0.0, self.rows * ratio, 0.0)
        self.pulls = vectors.by_slot(vectors.spread(self.energy.to(a.dtype)) * a)

    def descend(
        self, slots: Sequence[Slot], rate: float, total: float, outer: Tensor, energy: Tensor
    ) -> None:
        """a <- a - rate * score of the slots, from their sums. total: of the weights."""
        vectors, a = self.vectors, self.vectors.all
        totals = torch.full_like(energy, total)
        outer, energy, totals = vectors.among_all(slots, outer, energy, totals)
        inner = self.inner * totals + self.energy * energy
        move = outer - vectors.spread(inner.to(a.dtype)) * a
        move = rate * (vectors.spread(self.score) * move)
        self.walk += vectors.sums(move.square())
        a.sub_(move)


class RankOneCurvature(Sampler):
    """LOREN's law: noise shaped by a damped rank-one curvature, one learnt vector a per slot.

    All that depends on a stays on the device: a step waits for the device only where it reads its
    losses. State: one float32 vector per slot, as long as a matrix's row or as the vector itself.

    Formula:
        ```text
        Z = (U - c p a^T) / sqrt(rho),  U Gaussian,  p = U a
        c = (1 - root sqrt(rho) / s) / |a|^2,  s = sqrt(rho + |a|^2),  root = +1 or -1
        a <- a - lr_cov eps^2 sum_k w_k grad_a log p(z_k),  w_k the weight of direction k
        ```

    Args:
        eps: The optimizer's perturbation radius.
        rho: Damping, above 0.
        lr_cov: Learning rate of a, at least 0.
        form: `rows` (paper: each row of a matrix by itself) or `tiled` (released code: a repeated
            over the rows, one rank-one term on the whole tensor).
        root: `principal` or `reflection`, the two square roots of the inverse.
        init: Of a: `normal` or `zero`.

    Raises:
        ValueError: An argument is out of range.

    References:
        Seung et al. 2026, LOREN, arXiv 2511.07971.
    """

    needs = frozenset({POLICY})

    def __init__(
        self,
        *,
        eps: float,
        rho: float = 0.1,
        lr_cov: float = 1e-3,
        form: str = "rows",
        root: str = "principal",
        init: str = "normal",
    ) -> None:
        if rho <= 0.0 or lr_cov < 0.0:
            raise ValueError(f"sampler.rho={rho} must be positive, lr_cov={lr_cov} not negative")
        for name, value, options in (
            ("form", form, ("rows", "tiled")),
            ("root", root, ("principal", "reflection")),
            ("init", init, ("normal", "zero")),
        ):
            if value not in options:
                raise ValueError(f"sampler.{name}={value}: choose {' or '.join(options)}")
        self.eps, self.rho, self.lr_cov = eps, rho, lr_cov
        self.tiled, self.sign = form == "tiled", 1.0 if root == "principal" else -1.0
        self.random_start = init == "normal"

    def bind(self, slots: Sequence[Slot], seed: int) -> None:
        super().bind(slots, seed)
        alike: dict[object, list[Slot]] = {}
        for slot in slots:
            alike.setdefault((slot.state_dtype, slot.parameter.device), []).append(slot)
        self._laws = [
            _Laws(own, [self._start(slot) for slot in own], self.tiled) for own in alike.values()
        ]

    def _start(self, slot: Slot) -> Tensor:
        """a before the first step."""
        rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else 1
        dtype = torch.promote_types(slot.parameter.dtype, torch.float32)
        vector = torch.zeros(slot.numel // rows, dtype=dtype, device=slot.parameter.device)
        if self.random_start:
            Drawn.normal((self.seed, 0, 0), slot.id, number=_START).add_to(vector, 0, 1.0)
        return vector

    def state_bytes(self, slot: Slot) -> int:
        rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else 1
        return slot.numel // rows * slot.state_itemsize

    def begin_step(self, step: int) -> None:
        del step
        for laws in self._laws:
            laws.renew(self.rho, self.sign, 1.0 if self.tiled else 1.0 / math.sqrt(self.rho))
        self._pulls = {slot: pull for laws in self._laws for slot, pull in laws.pulls.items()}
        self._dots: dict[tuple[int, Key], Tensor] = {}

    @property
    def by_key(self) -> bool:
        return self.tiled

    def recipe(self, slot: Slot) -> Recipe:
        row = slot.buffers["curvature"], self._pulls[slot.id]
        return Recipe(row=row, row_scale=1.0 / math.sqrt(self.rho))

    def direction(self, slot: Slot, key: Key) -> Direction | None:
        if not self.tiled:
            return super().direction(slot, key)
        noise = Drawn.normal(key, slot.id)
        return Tiled(noise, self._pulls[slot.id], self._dot(slot, key))

    def _rows(self, slot: Slot, key: Key, start: int, stop: int) -> Tensor:
        """Rows of u in a's dtype."""
        vector = slot.buffers["curvature"]
        u = Drawn.normal(key, slot.id).draw(start, stop - start, slot.parameter.device)
        return u.to(vector.dtype).view(-1, vector.numel())

    def _dot(self, slot: Slot, key: Key) -> Tensor:
        """t = <u, a repeated over the rows>, once per direction and step."""
        if (slot.id, key) not in self._dots:
            vector = slot.buffers["curvature"]
            total = torch.zeros((), dtype=torch.float64, device=vector.device)
            for span in spans(slot.numel, vector.numel()):
                total += (self._rows(slot, key, *span) @ vector).sum(dtype=torch.float64)
            self._dots[slot.id, key] = total.to(vector.dtype)
        return self._dots[slot.id, key]

    def sums(self, channels: Channels) -> Mapping[Key, float]:
        """Those of the score, for the directions that were evaluated."""
        return {} if self.lr_cov == 0.0 or self.tiled else channels.get(POLICY, {})

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        """Move the slots' a: every direction of this step has been drawn on them."""
        weights = channels.get(POLICY, {})
        if self.lr_cov == 0.0 or not weights:
            return
        rate, total = self.lr_cov * self.eps**2, sum(weights.values())
        for laws in self._laws:
            own = [slot for slot in slots if slot.id in laws.pulls]
            if own and sums is not None:  # of all slots, on one device and in one dtype
                laws.descend(own, rate, total, sums.outer(), sums.energy())
            elif own:
                found = [self.score_sums(slot, weights) for slot in own]
                outer, energy = torch.cat([f[0] for f in found]), torch.stack([f[1] for f in found])
                laws.descend(own, rate, total, outer, energy)

    def score_sums(self, slot: Slot, weights: Mapping[Key, float]) -> tuple[Tensor, Tensor]:
        """The sums of weight * U^T p and weight * |p|^2 over directions, float64."""
        vector = slot.buffers["curvature"]
        outer = torch.zeros_like(vector, dtype=torch.float64)
        energy = torch.zeros((), dtype=torch.float64, device=vector.device)
        for key, weight in weights.items():
            for span in spans(slot.numel, vector.numel()):
                u = self._rows(slot, key, *span)
                p = self._dot(slot, key).expand(len(u)) if self.tiled else u @ vector
                outer.add_(p @ u, alpha=weight)
                energy.add_(p @ p, alpha=weight)
        return outer, energy

    def metrics(self) -> dict[str, float]:
        """|a|, and its drift from the start against a walk of independent moves.

        Moves below the resolution of a's dtype round away: a ratio far below 1 says so.
        """
        norm, drift = 0.0, 0.0
        for slot in self.slots:
            vector = slot.buffers["curvature"].double()
            norm += float(vector.square().sum())
            drift += float((vector - self._start(slot)).square().sum())
        walk = math.fsum(float(laws.walk.sum()) for laws in self._laws)
        return over_random_walk(math.sqrt(norm), math.sqrt(walk), math.sqrt(drift))

    def state_dict(self) -> dict[str, object]:
        walks = [zip(own.vectors.slots, own.walk.tolist(), strict=True) for own in self._laws]
        return {"walk": {slot.name: square for walk in walks for slot, square in walk}}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for own in self._laws:
            squares = [state["walk"][slot.name] for slot in own.vectors.slots]  # type: ignore[index]
            own.walk.copy_(torch.tensor(squares, dtype=torch.float64))
            own.vectors.adopt()
