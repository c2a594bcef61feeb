"""The three things called ZO-SignSGD (Liu et al. 2019, ICLR): what the sign is taken of.

With c_k the coefficients and z_k the directions of q queries,
scalar: w <- w - lr / q sum_k sign(c_k) z_k, the code of ZO-Bench (arXiv 2402.11592) and of LDSD;
elements: w <- w - lr / q sum_k sign(c_k z_k), all steps of one size;
mean: w <- w - lr sign(sum_k c_k z_k), the sign of the averaged estimate, the original definition.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from zobench.zo.feedback import Key
from zobench.zo.rules.base import BlockChange, Change, InTorch, Kind, Rule
from zobench.zo.space import Slot


class Sign(Rule):
    """Steps along signs; no state. What is exactly zero does not move.

    Formula:
        ```text
        scalar:   w <- w - lr / q sum_k sign(c_k) z_k
        elements: w <- w - lr / q sum_k sign(c_k z_k)
        mean:     w <- w - lr sign(sum_k c_k z_k)
        ```

    Args:
        of: What the sign is taken of: `scalar` (each coefficient), `elements` (each coefficient
            times each element of its direction) or `mean` (each element of the averaged estimate).
            The first two divide by q, the queries in which the slot takes part.

    Raises:
        ValueError: `of` is another name.

    References:
        Liu et al. 2019, signSGD via Zeroth-Order Oracle, ICLR; ZO-Bench, arXiv 2402.11592.
    """

    def __init__(self, *, of: str = "mean") -> None:
        if of not in ("scalar", "elements", "mean"):
            raise ValueError(f"rule.of={of}: choose scalar, elements or mean")
        self.of = of

    def change(
        self, grad: Mapping[Key, float], kind: Kind, *, lr: float, step: int
    ) -> Change | BlockChange | None:
        del kind, step
        if not grad:
            return None  # the slots took no part in this step
        if self.of == "mean":
            return Change(grad, state=lambda _: InTorch((), _along_sign(lr)))
        scales = {key: -lr * _sign(c) / len(grad) for key, c in grad.items()}
        if self.of == "scalar":
            return Change(scales)

        def apply(slot: Slot, place: slice, weights: Tensor, z: Mapping[Key, Tensor]) -> None:
            del slot, place
            for key, scale in scales.items():
                weights.add_(z[key].sign_(), alpha=scale)

        return BlockChange(apply)


def _along_sign(lr: float) -> Callable[[Tensor, Tensor], None]:
    def update(weights: Tensor, estimate: Tensor) -> None:
        weights.add_(estimate.sign_(), alpha=-lr)

    return update


def _sign(number: float) -> int:
    return (number > 0.0) - (number < 0.0)
