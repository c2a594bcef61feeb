"""The overhead of a step per tensor: small tensors and a constant loss, so that planning dominates.

`python -m zobench.bench.overhead`: milliseconds of a step, planned for all tensors at once and
tensor by tensor, and the ratio to MeZO's per pass.
"""

import argparse
import statistics

import torch
from torch import nn

from zobench.bench.clock import seconds_of
from zobench.bench.hardware import hardware
from zobench.bench.noise import free_step
from zobench.methods import optimizer_of
from zobench.zo.optimizer import ZOOptimizer

_SIDE, _STEPS = 8, 30
_CPU = torch.device("cpu")
_ROWS = ["mezo", "conmezo", "ldsd_sgd", "loren", "curvzo"]


def optimizer_over(row: str, tensors: int) -> ZOOptimizer:
    """That row of conf/optimizer on square matrices."""
    model = nn.ParameterDict()
    for number in range(tensors):
        model[f"q_proj{number}"] = nn.Parameter(torch.zeros(_SIDE, _SIDE))
    return optimizer_of(row, model)


def milliseconds(optimizer: ZOOptimizer, *, together: bool) -> float:
    """Median time of a step."""
    optimizer.engine.plan.by_slot = not together
    step = free_step(optimizer)
    for _ in range(3):  # the first makes tables and state
        step()
    return 1e3 * statistics.median(seconds_of(step, _CPU) for _ in range(_STEPS))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, nargs="+", default=[4, 40, 400])
    parser.add_argument("--rows", nargs="+", default=_ROWS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{hardware(_CPU)['cpu']}, 1 thread")
    print("| row | tensors | passes | all at once, ms | one by one, ms | per pass, MeZO's is 1 |")
    print("|---|---:|---:|---:|---:|---:|")
    mezo: dict[int, float] = {}
    for row in chosen.rows:
        for tensors in chosen.tensors:
            optimizer = optimizer_over(row, tensors)
            passes = optimizer.estimator.forwards + 1  # to each point, and the update
            at_once, apart = (
                milliseconds(optimizer, together=together) for together in (True, False)
            )
            each = at_once / passes
            ratio = f"{each / mezo.setdefault(tensors, each):.3g}"
            print(f"| {row} | {tensors} | {passes:.3g} | {at_once:.3g} | {apart:.3g} | {ratio} |")


if __name__ == "__main__":
    main()
