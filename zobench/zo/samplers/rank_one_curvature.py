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
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.zo.directions import Dense, add_drawn
from zobench.zo.feedback import POLICY, Key, Replay
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot

_START = 1  # stream number of a's random start


@dataclass(frozen=True)
class Shaped:
    """scale * (u - shrink * <u, a> a) row by row, or over the tensor where `dot` is given."""

    noise: Dense
    vector: Tensor
    shrink: float
    scale: float
    dot: float | None

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        add_drawn(self, out, start, first, second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        width = self.vector.numel()
        first, last = start // width, -(-(start + count) // width)
        rows = self.noise.draw(first * width, (last - first) * width, device).view(-1, width)
        vector = self.vector.to(rows.dtype)
        along = rows @ vector if self.dot is None else rows.new_full((len(rows),), self.dot)
        rows.addr_(along, vector, alpha=-self.shrink).mul_(self.scale)
        return rows.view(-1)[start - first * width :][:count]


class RankOneCurvature(Sampler):
    """rho: damping; lr_cov: learning rate of a; eps: the optimizer's; init: of a, normal or zero.

    State: one float32 vector per slot, as long as a matrix's row or as the vector itself.
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
        for slot in slots:
            rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else 1
            dtype = torch.promote_types(slot.parameter.dtype, torch.float32)
            vector = torch.zeros(slot.numel // rows, dtype=dtype, device=slot.parameter.device)
            if self.random_start:
                Dense.normal((seed, 0, 0), slot.id, number=_START).add_to(vector, 0, 1.0)
            slot.buffers["curvature"] = vector

    def begin_step(self, step: int) -> None:
        del step
        self._dots: dict[tuple[int, Key], float] = {}

    def direction(self, slot: Slot, key: Key) -> Shaped:
        vector, square, root = self._shape(slot)
        shrink = (1.0 - self.sign * math.sqrt(self.rho) / root) / square if square else 0.0
        dense = Dense.normal(key, slot.id)
        if self.tiled:
            return Shaped(dense, vector, shrink, 1.0, self._dot(slot, key))
        return Shaped(dense, vector, shrink, 1.0 / math.sqrt(self.rho), None)

    def _shape(self, slot: Slot) -> tuple[Tensor, float, float]:
        """a, q and s of the slot."""
        vector = slot.buffers["curvature"]
        square = float(vector.double().square().sum())
        if self.tiled:
            square *= slot.numel // vector.numel()
        return vector, square, math.sqrt(self.rho + square)

    def _rows(self, slot: Slot, key: Key, start: int, stop: int) -> Tensor:
        width = slot.buffers["curvature"].numel()
        dense = Dense.normal(key, slot.id)
        return dense.draw(start, stop - start, slot.parameter.device).view(-1, width)

    def _dot(self, slot: Slot, key: Key) -> float:
        """t = <u, a repeated over the rows>, once per direction and step."""
        if (slot.id, key) not in self._dots:
            vector = slot.buffers["curvature"].double()
            parts = (self._rows(slot, key, *span).double() @ vector for span in slot.spans())
            self._dots[slot.id, key] = sum(float(part.sum()) for part in parts)
        return self._dots[slot.id, key]

    def score(self, slot: Slot, key: Key) -> Tensor:
        """grad_a log p of a direction (`tiled`: times sqrt(rho)), as long as a."""
        vector, square, root = self._shape(slot)
        sign, ratio = self.sign, math.sqrt(self.rho) / root
        outer, energy, rows = torch.zeros_like(vector).double(), 0.0, slot.numel // vector.numel()
        for span in slot.spans():
            u = self._rows(slot, key, *span).double()
            if self.tiled:
                outer += self._dot(slot, key) * u.sum(0)
            else:
                p = u @ vector.double()
                outer += u.T @ p
                energy += float(p.square().sum())
        if self.tiled:
            energy = rows * self._dot(slot, key) ** 2
        pull = sign * rows * ratio + (1.0 - sign * ratio) * energy / square if square else 0.0
        scale = -sign / root if self.tiled else -sign / (root * math.sqrt(self.rho))
        return scale * (outer - pull * vector)

    def observe(self, slot: Slot, replays: Sequence[Replay]) -> None:
        """Move the slot's a: every direction of this step has been drawn on it."""
        if self.lr_cov == 0.0:
            return
        step = torch.zeros_like(slot.buffers["curvature"]).double()
        for replay in replays:
            if weight := replay.coefficients.get(POLICY, 0.0):
                step += weight * self.score(slot, replay.key)
        slot.buffers["curvature"].sub_(self.lr_cov * self.eps**2 * step)
