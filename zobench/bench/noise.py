"""Noise throughput: nanoseconds per parameter of one pass that draws z and adds it to the weights.

Measured on steps whose loss costs nothing: a two-sided step is three such passes, so that this is
what the passes of the cost model take where the weights are one large float32 vector.
"""

from collections.abc import Callable, Iterable

import torch

from zobench.bench.clock import seconds_of
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.rademacher import Rademacher

TORCH = "torch normal_ + add_"
Throughput = dict[str, dict[str, list[float]]]
PASSES = 3  # to w + eps z, across to w - eps z, back with the update


def throughput(parameters: int, rounds: int, device: torch.device) -> Throughput:
    """{pass: {"1": ns of every round, "<all>": ...}} by CPU threads, the passes in turns.

    The passes are each law's, and torch's own for comparison. On a GPU threads do not matter and
    the one key is "gpu".
    """
    weights = torch.nn.Parameter(torch.zeros(parameters, device=device))
    pieces = _pieces(weights)
    threads = torch.get_num_threads()
    keys = {"gpu": threads}
    if device.type == "cpu":
        keys = {str(count): count for count in sorted({1, threads})}
    found: Throughput = {name: {key: [] for key in keys} for name in pieces}
    for key, count in keys.items():
        torch.set_num_threads(count)
        for once, _ in pieces.values():
            once()  # compile and start threads before the clock does
        for _ in range(rounds):
            for name, (once, passes) in pieces.items():
                elapsed = seconds_of(once, device)
                found[name][key].append(elapsed / passes / parameters * 1e9)
    torch.set_num_threads(threads)
    return found


def _pieces(weights: torch.nn.Parameter) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed, and how many passes over the weights it is."""
    generator = torch.Generator(weights.device)

    def with_torch() -> None:
        weights.data.add_(torch.empty_like(weights.data).normal_(generator=generator), alpha=1e-3)

    laws: dict[str, Sampler] = {
        "normal16": Gaussian(),
        "rademacher": Rademacher(),
        "normal": Gaussian(law="normal"),
    }
    steps = {
        law: free_step(free_optimizer([("weights", weights)], sampler))
        for law, sampler in laws.items()
    }
    return {TORCH: (with_torch, 1)} | {law: (step, PASSES) for law, step in steps.items()}


def free_optimizer(
    named: Iterable[tuple[str, torch.nn.Parameter]], sampler: Sampler
) -> ZOOptimizer:
    """Plain descent on two evaluations a step."""
    return ZOOptimizer(named, lr=1e-9, eps=1e-3, sampler=sampler, estimator=TwoSided(), rule=SGD())


def free_step(optimizer: ZOOptimizer) -> Callable[[], object]:
    """A step whose loss costs nothing."""
    engine = optimizer.engine  # the losses differ: an update of nothing might be skipped
    return lambda: optimizer.step(lambda: float(engine.forwards % 2))
