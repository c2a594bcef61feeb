"""MeZO's step as in the reference codes: the baseline of the other steps.

Algorithm 1 of MeZO (Malladi et al. 2023, arXiv 2305.17333). A step draws a seed, moves the weights
to w + eps z, w - eps z and back to w, and then subtracts lr g z, g = (l+ - l-) / (2 eps). z is
drawn again in each of these four passes, tensor by tensor, and never kept between them.

Cost in addition to two forwards: four draws of z in the weights' dtype; and since no operation is
in place, about 16 bytes of traffic per 16-bit parameter in a perturbing pass and 26 in the update,
74 in all, with up to three temporaries as large as the largest tensor. The restored weights do not
have their old bits, least of all in 16 bits.
"""

import random
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class PlainMeZO:
    """Two-sided Gaussian steps with decay of matrices; all parameters are on one device.

    zo_seed, projected_grad: the last step's seed of z and its g. The weights' storage is replaced
    in every pass.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        lr: float = 1e-6,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.parameters = list(named_parameters)
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.zo_seed = 0
        self.projected_grad = 0.0
        self._seeds = random.Random(seed)
        self._generator = torch.Generator(self.parameters[0][1].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> float:
        """One step; returns the loss at w + eps z."""
        self.zo_seed = self._seeds.randrange(1_000_000_000)
        self._perturb(1.0)
        above = closure()
        self._perturb(-2.0)
        below = closure()
        self._perturb(1.0)
        self.projected_grad = ((above - below) / (2 * self.eps)).item()
        self._update()
        return float(above)

    def _perturb(self, scale: float) -> None:
        self._generator.manual_seed(self.zo_seed)
        for _, parameter in self.parameters:
            z = self._normal(parameter)
            parameter.data = parameter.data + scale * z * self.eps

    def _update(self) -> None:
        self._generator.manual_seed(self.zo_seed)
        for _, parameter in self.parameters:
            z = self._normal(parameter)
            decay = self.weight_decay if parameter.dim() > 1 else 0.0  # not of norms and biases
            moved = self.projected_grad * z + decay * parameter.data
            parameter.data = parameter.data - self.lr * moved

    def _normal(self, like: Tensor) -> Tensor:
        return torch.normal(
            0.0, 1.0, like.shape, generator=self._generator, device=like.device, dtype=like.dtype
        )
