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

from zobench.zo.directions import Dense, Direction, add_drawn
from zobench.zo.feedback import POLICY, Key, Replay
from zobench.zo.samplers.base import Sampler, against_walk
from zobench.zo.space import Slot

_START = 1  # stream number of a's random start


@dataclass(frozen=True)
class Shaped:
    """scale * (u - <u, a> pull) row by row, or <u, a> over the whole tensor where `dot` is given.

    Computed in the dtype of `vector` = a; `pull` is a multiple of a. A Direction.
    """

    noise: Direction
    vector: Tensor
    pull: Tensor
    scale: float
    dot: Tensor | None

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        add_drawn(self, out, start, first, second)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        width = self.vector.numel()
        first, last = start // width, -(-(start + count) // width)
        flat = self.noise.draw(first * width, (last - first) * width, device)
        rows = flat.to(self.vector.dtype).view(-1, width)
        if self.dot is None:
            rows.addr_(rows @ self.vector, self.pull, alpha=-1.0)
        else:
            rows.sub_(self.dot * self.pull)
        return rows.mul_(self.scale).view(-1)[start - first * width :][:count]


@dataclass(frozen=True)
class _Shape:
    """A slot's law during one step: a, q = |a|^2 over what it acts on, and s, as tensors."""

    vector: Tensor
    square: Tensor
    root: Tensor  # s = sqrt(rho + q)
    pull: Tensor


class RankOneCurvature(Sampler):
    """rho: damping; lr_cov: learning rate of a; eps: the optimizer's; init: of a, normal or zero.

    State: one float32 vector per slot, as long as a matrix's row or as the vector itself. All that
    depends on a stays on the device: a step waits for the device only where it reads its losses.
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
        self._walk: dict[str, Tensor] = {}  # per slot, the squared lengths of all moves of a
        for slot in slots:
            slot.buffers["curvature"] = self._start(slot)
            self._walk[slot.name] = torch.zeros((), dtype=torch.float64, device=slot.flat.device)

    def _start(self, slot: Slot) -> Tensor:
        """a before the first step."""
        rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else 1
        dtype = torch.promote_types(slot.parameter.dtype, torch.float32)
        vector = torch.zeros(slot.numel // rows, dtype=dtype, device=slot.parameter.device)
        if self.random_start:
            Dense.normal((self.seed, 0, 0), slot.id, number=_START).add_to(vector, 0, 1.0)
        return vector

    def begin_step(self, step: int) -> None:
        del step
        self._shapes = {slot.id: self._shape(slot) for slot in self.slots}
        self._dots: dict[tuple[int, Key], Tensor] = {}

    def _shape(self, slot: Slot) -> _Shape:
        vector = slot.buffers["curvature"]
        square = vector.double().square().sum()
        if self.tiled:
            square = square * (slot.numel // vector.numel())
        root = torch.sqrt(self.rho + square)
        shrink = (1.0 - self.sign * math.sqrt(self.rho) / root) / square
        shrink = torch.where(square > 0.0, shrink, 0.0)  # a = 0 is plain noise
        return _Shape(vector, square, root, (shrink * vector).to(vector.dtype))

    def direction(self, slot: Slot, key: Key) -> Shaped:
        shape, dense = self._shapes[slot.id], Dense.normal(key, slot.id)
        if self.tiled:
            return Shaped(dense, shape.vector, shape.pull, 1.0, self._dot(slot, key))
        return Shaped(dense, shape.vector, shape.pull, 1.0 / math.sqrt(self.rho), None)

    def _rows(self, slot: Slot, key: Key, start: int, stop: int) -> Tensor:
        """Rows of u in a's dtype."""
        vector = slot.buffers["curvature"]
        u = Dense.normal(key, slot.id).draw(start, stop - start, slot.parameter.device)
        return u.to(vector.dtype).view(-1, vector.numel())

    def _dot(self, slot: Slot, key: Key) -> Tensor:
        """t = <u, a repeated over the rows>, once per direction and step."""
        if (slot.id, key) not in self._dots:
            vector = slot.buffers["curvature"]
            total = torch.zeros((), dtype=torch.float64, device=vector.device)
            for span in slot.spans():
                total += (self._rows(slot, key, *span) @ vector).sum(dtype=torch.float64)
            self._dots[slot.id, key] = total.to(vector.dtype)
        return self._dots[slot.id, key]

    def score(self, slot: Slot, key: Key) -> Tensor:
        """grad_a log p of a direction (`tiled`: times sqrt(rho)), float64, as long as a."""
        shape = self._shapes[slot.id]
        vector, rows = shape.vector.double(), slot.numel // shape.vector.numel()
        outer, energy = torch.zeros_like(vector), torch.zeros_like(shape.square)
        for span in slot.spans():
            u = self._rows(slot, key, *span)
            if self.tiled:
                outer += self._dot(slot, key) * u.sum(0)
            else:
                p = u @ shape.vector
                outer += u.T @ p
                energy += p.square().sum()
        if self.tiled:
            energy = rows * self._dot(slot, key).double().square()
        ratio = self.sign * math.sqrt(self.rho) / shape.root
        pull = rows * ratio + (1.0 - ratio) * energy / shape.square
        pull = torch.where(shape.square > 0.0, pull, 0.0)
        scale = -self.sign / shape.root
        if not self.tiled:
            scale = scale / math.sqrt(self.rho)
        return scale * (outer - pull * vector)

    def observe(self, slot: Slot, replays: Sequence[Replay]) -> None:
        """Move the slot's a: every direction of this step has been drawn on it."""
        if self.lr_cov == 0.0:
            return
        total = torch.zeros_like(slot.buffers["curvature"], dtype=torch.float64)
        for replay in replays:
            if weight := replay.coefficients.get(POLICY, 0.0):
                move = self.lr_cov * self.eps**2 * weight * self.score(slot, replay.key)
                self._walk[slot.name] += move.square().sum()
                total += move
        slot.buffers["curvature"].sub_(total)

    def vitals(self) -> dict[str, float]:
        """|a|, and its drift from the start against a walk of independent moves.

        Moves below the resolution of a's dtype round away: a ratio far below 1 says so.
        """
        norm, drift = 0.0, 0.0
        for slot in self.slots:
            vector = slot.buffers["curvature"].double()
            norm += float(vector.square().sum())
            drift += float((vector - self._start(slot)).square().sum())
        walk = math.fsum(float(square) for square in self._walk.values())
        return against_walk(math.sqrt(norm), math.sqrt(walk), math.sqrt(drift))

    def state_dict(self) -> dict[str, object]:
        return {"walk": {name: float(square) for name, square in self._walk.items()}}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name, square in state["walk"].items():  # type: ignore[attr-defined]
            self._walk[name].fill_(square)
