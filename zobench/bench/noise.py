"""Noise throughput on one CPU thread: `python -m zobench.bench.noise`.

Prints nanoseconds per parameter of perturbing a float32 vector in place (draw and add), for each
law, beside torch's own `normal_` and `add_`, measured in turns in one process.
"""

import statistics
import time
from collections.abc import Callable

import torch

from zobench.zo.noise import Law, Stream, cpu

PARAMETERS = 16_000_000
ROUNDS = 7


def main() -> None:
    torch.set_num_threads(1)
    weights = torch.zeros(PARAMETERS)
    generator = torch.Generator().manual_seed(0)

    def with_torch() -> None:
        weights.add_(torch.empty(PARAMETERS).normal_(generator=generator), alpha=1e-3)

    def with_law(law: Law) -> Callable[[], None]:
        return lambda: cpu.add(weights, law, Stream(1, 2), 0, 1e-3)

    passes = {"torch normal_ + add_": with_torch}
    passes |= {f"zobench {law}": with_law(law) for law in Law}
    times: dict[str, list[float]] = {name: [] for name in passes}
    for law in Law:
        cpu.add(weights[:2048], law, Stream(1, 2), 0, 0.0)  # compile before the clock starts
    for _ in range(ROUNDS):
        for name, once in passes.items():
            start = time.perf_counter()
            once()
            times[name].append((time.perf_counter() - start) / PARAMETERS * 1e9)
    base = statistics.median(times["torch normal_ + add_"])
    print(f"perturb, ns per parameter, 1 thread, {PARAMETERS:,} float32 parameters")
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} - {max(values):.2f}"
        print(f"  {name:24} {median:6.2f}  ({spread})  {base / median:5.2f} x torch")


if __name__ == "__main__":
    main()
