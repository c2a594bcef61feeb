"""The overhead of a step per tensor: small tensors and a constant loss, so that planning dominates.

`python -m zobench.bench.overhead`: milliseconds of a MeZO step, planned for all tensors at once
and tensor by tensor, and microseconds per tensor and pass.
"""

import argparse
import statistics

import torch

from zobench.bench.clock import seconds_of
from zobench.bench.hardware import hardware
from zobench.bench.noise import PASSES, free_step
from zobench.zo.samplers.base import Steady
from zobench.zo.samplers.gaussian import Gaussian

_ELEMENTS, _STEPS = 64, 30
_CPU = torch.device("cpu")


def milliseconds(tensors: int, *, together: bool) -> float:
    """Median time of a two-sided step."""
    parameters = [(f"{i}", torch.nn.Parameter(torch.zeros(_ELEMENTS))) for i in range(tensors)]
    sampler = Gaussian()
    if not together:
        sampler.steady = Steady.NEVER
    step = free_step(parameters, sampler)
    return 1e3 * statistics.median(seconds_of(step, _CPU) for _ in range(_STEPS))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, nargs="+", default=[4, 40, 400])
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{hardware(_CPU)['cpu']}, 1 thread")
    print("| tensors | all at once, ms | one by one, ms | us per tensor and pass |")
    print("|---:|---:|---:|---:|")
    for tensors in chosen.tensors:
        both = [milliseconds(tensors, together=together) for together in (True, False)]
        each = " and ".join(f"{1e3 * ms / tensors / PASSES:.3g}" for ms in both)
        print(f"| {tensors} | {both[0]:.3g} | {both[1]:.3g} | {each} |")


if __name__ == "__main__":
    main()
