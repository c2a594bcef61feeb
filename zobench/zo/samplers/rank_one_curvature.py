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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zobench.zo.directions import Dense, Direction, Recipe
from zobench.zo.feedback import POLICY, DrawnTerm, Key
from zobench.zo.passes import fused
from zobench.zo.passes.blocks import spans
from zobench.zo.passes.move import Move, RowSums
from zobench.zo.passes.tables import groups_of
from zobench.zo.samplers.base import Sampler, Steady, over_random_walk
from zobench.zo.space import Slot

_START = 1  # stream number of a's random start


@dataclass(frozen=True)
class Shaped(Direction):
    """scale * (u - <u, a> pull) row by row, or <u, a> over the whole tensor where `dot` is given.

    Computed in the dtype of `vector` = a; `pull` is a multiple of a.
    """

    noise: Dense
    vector: Tensor
    pull: Tensor
    scale: float
    dot: Tensor | None

    @property
    def recipe(self) -> Recipe | None:
        if self.dot is not None or self.vector.dtype != torch.float32:
            return None
        row = self.vector, self.pull
        return Recipe(self.noise.stream, self.noise.law, row=row, row_scale=self.scale)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        width = self.vector.numel()
        first, last = start // width, -(-(start + count) // width)
        if self.recipe is not None and device.type == "cpu":  # the bits of the fused pass
            rows = fused.drawn(self.recipe, first * width, (last - first) * width)
            return rows[start - first * width :][:count]
        flat = self.noise.draw(first * width, (last - first) * width, device)
        rows = flat.to(self.vector.dtype).view(-1, width)
        if self.dot is None:
            rows.addr_(rows @ self.vector, self.pull, alpha=-1.0)
        else:
            rows.sub_(self.dot * self.pull)
        return rows.mul_(self.scale).view(-1)[start - first * width :][:count]


@dataclass(frozen=True)
class _Shape:
    """A slot's law during one step, as tensors.

    grad_a log p = score * (U^T p - (inner + energy * |p|^2) a).
    """

    vector: Tensor  # a
    pull: Tensor  # what <u, a> is multiplied by and taken from u
    score: Tensor
    inner: Tensor
    energy: Tensor


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
    steady = Steady.STEP

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
        self._walk: dict[str, Tensor] = {}  # per slot, the squared lengths of a's moves
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

    def state_bytes(self, slot: Slot) -> int:
        rows = slot.parameter.shape[0] if slot.parameter.dim() > 1 else 1
        return slot.numel // rows * slot.state_itemsize

    def begin_step(self, step: int) -> None:
        del step
        self._shapes = {slot.id: self._shape(slot) for slot in self.slots}
        self._dots: dict[tuple[int, Key], Tensor] = {}
        self._row_sums: dict[int, RowSums] = {}

    def _shape(self, slot: Slot) -> _Shape:
        vector = slot.buffers["curvature"]
        square = vector.double().square().sum()
        if self.tiled:
            square = square * (slot.numel // vector.numel())
        ratio = self.sign * math.sqrt(self.rho) / torch.sqrt(self.rho + square)
        shrink = torch.where(square > 0.0, (1.0 - ratio) / square, 0.0)  # a = 0 is plain noise
        score = -ratio / math.sqrt(self.rho) / (1.0 if self.tiled else math.sqrt(self.rho))
        inner = torch.where(square > 0.0, slot.numel // vector.numel() * ratio, 0.0)
        return _Shape(vector, (shrink * vector).to(vector.dtype), score, inner, shrink)

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
            for span in spans(slot.numel, vector.numel()):
                total += (self._rows(slot, key, *span) @ vector).sum(dtype=torch.float64)
            self._dots[slot.id, key] = total.to(vector.dtype)
        return self._dots[slot.id, key]

    def score(self, slot: Slot, weights: Mapping[Key, float]) -> Tensor:
        """sum of weight * grad_a log p over directions (`tiled`: times sqrt(rho)), float64."""
        vector = slot.buffers["curvature"]
        outer = torch.zeros_like(vector, dtype=torch.float64)
        energy = torch.zeros((), dtype=torch.float64, device=vector.device)
        for key, weight in weights.items():
            for span in spans(slot.numel, vector.numel()):
                u = self._rows(slot, key, *span)
                p = self._dot(slot, key).expand(len(u)) if self.tiled else u @ vector
                outer.add_(p @ u, alpha=weight)
                energy.add_(p @ p, alpha=weight)
        return self._score(slot, weights, outer, energy)

    def _score(
        self, slot: Slot, weights: Mapping[Key, float], outer: Tensor, energy: Tensor
    ) -> Tensor:
        """From the sums of weight * U^T p and weight * |p|^2."""
        shape = self._shapes[slot.id]
        inner = shape.inner * sum(weights.values()) + shape.energy * energy
        return shape.score * (outer - inner * shape.vector)

    def with_row_sums(self, slot: Slot, move: Move, drawn: Sequence[DrawnTerm]) -> Move:
        """Take the sums of the score where the update draws the directions anyway."""
        weights = _policy(drawn)
        keys = {id(term.direction): term.key for term in drawn}
        own = [keys.get(id(term.direction)) for term in move.terms]
        if self.lr_cov == 0.0 or self.tiled or not fused.able(move) or weights.keys() - {*own}:
            return move
        groups, width = groups_of(slot.numel), slot.buffers["curvature"].numel()
        outer = torch.zeros(groups, width, dtype=torch.float64)
        sum_weights = [weights.get(key, 0.0) if key else 0.0 for key in own]
        sums = RowSums(sum_weights, outer, torch.zeros(groups, dtype=torch.float64))
        self._row_sums[slot.id] = sums
        return replace(move, row_sums=sums)

    def observe(self, slot: Slot, drawn: Sequence[DrawnTerm]) -> None:
        """Move the slot's a: every direction of this step has been drawn on it."""
        if self.lr_cov == 0.0:
            return
        weights = _policy(drawn)
        if sums := self._row_sums.pop(slot.id, None):
            score = self._score(slot, weights, sums.outer.sum(0), sums.energy.sum())
        else:
            score = self.score(slot, weights)
        move = self.lr_cov * self.eps**2 * score
        self._walk[slot.name] += move.square().sum()
        slot.buffers["curvature"].sub_(move)

    def metrics(self) -> dict[str, float]:
        """|a|, and its drift from the start against a walk of independent moves.

        Moves below the resolution of a's dtype round away: a ratio far below 1 says so.
        """
        norm, drift = 0.0, 0.0
        for slot in self.slots:
            vector = slot.buffers["curvature"].double()
            norm += float(vector.square().sum())
            drift += float((vector - self._start(slot)).square().sum())
        walk = math.fsum(float(square) for square in self._walk.values())
        return over_random_walk(math.sqrt(norm), math.sqrt(walk), math.sqrt(drift))

    def state_dict(self) -> dict[str, object]:
        return {"walk": {name: float(square) for name, square in self._walk.items()}}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name, square in state["walk"].items():  # type: ignore[attr-defined]
            self._walk[name].fill_(square)


def _policy(drawn: Sequence[DrawnTerm]) -> dict[Key, float]:
    """The weights of the directions that were evaluated."""
    return {term.key: term.coefficients[POLICY] for term in drawn if POLICY in term.coefficients}
