"""Adam whose moments are those of a low-rank image of the gradient: GaLore and APOLLO."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zobench.first_order.groups import Named, is_layer_matrix
from zobench.zo import noise

_PROJECTION = 16  # stream number of APOLLO's projections
_GROWTH = 1.01  # of the norm of APOLLO's step, at most, from one step to the next


class LowRank(torch.optim.Optimizer):
    """Adam whose moments, on matrices of layers, are those of a low-rank image of the gradient.

    The image R of an m x n gradient G is P^T G for m <= n, else G P; all of it is stated for the
    first case. Other tensors get Adam. State: r (m + 2 n) floats a matrix, r m of them P.

    Args:
        named_parameters: (name, tensor) pairs.
        lr: Learning rate.
        rank: r, at least 1; a matrix's shorter side at most.
        refresh: Steps between two P, at least 1.
        betas: Decay rates of the moments.
        eps: Is added to the root of the second moment.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        named_parameters: Named,
        *,
        lr: float,
        rank: int,
        refresh: int,
        betas: Sequence[float],
        eps: float,
    ) -> None:
        if rank < 1 or refresh < 1:
            raise ValueError(f"optimizer.rank={rank}, optimizer.refresh={refresh}: at least 1")
        pairs = list(named_parameters)
        self._matrices = {tensor: name for name, tensor in pairs if is_layer_matrix(name, tensor)}
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "step": 0}
        super().__init__([tensor for _, tensor in pairs], defaults)
        self.rank, self.refresh = rank, refresh

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients that the tensors have.

        Args:
            closure: Is not called.
        """
        del closure
        [group] = self.param_groups
        for tensor in group["params"]:
            grad, state, name = tensor.grad, self.state[tensor], self._matrices.get(tensor)
            if grad is None:
                continue
            if name is None:
                tensor.sub_(group["lr"] * self._adam(grad, state, group))
            elif tensor.shape[0] > tensor.shape[1]:
                self._move(name, tensor.T, grad.T, state, group)
            else:
                self._move(name, tensor, grad, state, group)
        group["step"] += 1

    def _move(
        self,
        name: str,
        weights: Tensor,
        grad: Tensor,
        state: dict[str, Tensor],
        group: dict[str, Any],
    ) -> None:
        """Move a matrix that has no more rows than columns."""
        if group["step"] % self.refresh == 0:
            state["basis"] = self.basis(name, grad, min(self.rank, len(grad)), group["step"])
        image = state["basis"].T @ grad
        weights.sub_(group["lr"] * self.update(state, grad, image, self._adam(image, state, group)))

    @abstractmethod
    def basis(self, name: str, grad: Tensor, rank: int, step: int) -> Tensor:
        """P, (m, rank)."""

    @abstractmethod
    def update(self, state: dict[str, Tensor], grad: Tensor, image: Tensor, adam: Tensor) -> Tensor:
        """What is subtracted, times lr, given G, R and Adam's direction on R."""

    def _adam(self, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        """Adam's direction, with bias correction."""
        (beta1, beta2), count = group["betas"], group["step"] + 1
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in state:
                state[name] = torch.zeros_like(grad)
        mean = state["exp_avg"].lerp_(grad, 1.0 - beta1) / (1.0 - beta1**count)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        return mean / ((square / (1.0 - beta2**count)).sqrt_() + group["eps"])


class GaLore(LowRank):
    """GaLore: Adam in the space of the gradient's main singular vectors.

    Formula:
        ```text
        P = the first r left singular vectors of G, anew every `refresh` steps;  R = P^T G
        w <- w - lr scale P Adam(R)
        ```

    Args:
        named_parameters: (name, tensor) pairs.
        lr: Learning rate.
        rank: See `LowRank`, as for the arguments that are not listed here.
        scale: Factor of the step on matrices.

    References:
        Zhao et al. 2024, GaLore, arXiv 2403.03507, Algorithm 2.
    """

    def __init__(
        self,
        named_parameters: Named,
        *,
        lr: float,
        rank: int,
        scale: float,
        refresh: int = 200,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(named_parameters, lr=lr, rank=rank, refresh=refresh, betas=betas, eps=eps)
        self.scale = scale

    def basis(self, name: str, grad: Tensor, rank: int, step: int) -> Tensor:
        del name, step
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        vectors = torch.linalg.svd(wide, full_matrices=False).U
        return vectors[:, :rank].to(grad.dtype, copy=True)

    def update(self, state: dict[str, Tensor], grad: Tensor, image: Tensor, adam: Tensor) -> Tensor:
        del grad, image
        return self.scale * (state["basis"] @ adam)


class APOLLO(LowRank):
    """APOLLO: the gradient, scaled as Adam scales a random image of it.

    Formula:
        ```text
        P Gaussian with variance 1 / r, anew every `refresh` steps;  R = P^T G
        s = |Adam(R)| / |R|, by columns or (per_tensor) over all of R
        U = sqrt(scale) G diag(s), shortened to 1.01 times the norm that U had in the step before
        w <- w - lr U
        ```

    Args:
        named_parameters: (name, tensor) pairs.
        lr: Learning rate.
        rank: See `LowRank`, as for the arguments that are not listed here.
        scale: Square of a factor of the step on matrices.
        per_tensor: One s for all of a matrix, as in APOLLO-Mini.
        seed: Names the noise of P; the global random state is not touched.

    References:
        Zhu et al. 2024, APOLLO, arXiv 2412.05270, Algorithm 1; the limit on the norm's growth is
        that of Chen et al. 2024, Fira, arXiv 2410.01623.
    """

    def __init__(
        self,
        named_parameters: Named,
        *,
        lr: float,
        rank: int,
        scale: float = 1.0,
        per_tensor: bool = False,
        seed: int = 0,
        refresh: int = 200,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(named_parameters, lr=lr, rank=rank, refresh=refresh, betas=betas, eps=eps)
        self.scale, self.per_tensor, self.seed = scale, per_tensor, seed

    def basis(self, name: str, grad: Tensor, rank: int, step: int) -> Tensor:
        stream = noise.Stream(noise.mix(self.seed, step, 0), noise.tensor_id(name), _PROJECTION)
        drawn = noise.draw(noise.Law.NORMAL16, stream, 0, len(grad) * rank, grad.device)
        return (drawn / math.sqrt(rank)).view(-1, rank).to(grad.dtype)

    def update(self, state: dict[str, Tensor], grad: Tensor, image: Tensor, adam: Tensor) -> Tensor:
        along = None if self.per_tensor else 0
        sizes = [torch.linalg.vector_norm(part, dim=along) for part in (adam, image)]
        step = math.sqrt(self.scale) * (grad * (sizes[0] / (sizes[1] + 1e-8)))
        norm = torch.linalg.vector_norm(step)
        if "norm" in state:
            shorter = (_GROWTH * state["norm"] / (norm + 1e-30)).clamp(max=1.0)
            step, norm = step * shorter, norm * shorter
        state["norm"] = norm
        return step
