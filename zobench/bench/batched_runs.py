"""Batched runs against runs one after another: `python -m zobench.bench.batched_runs`.

A model of random weights (OPT-125m's shape; nothing is downloaded) is tuned in a small part, and
takes one step of each of several runs, with a batch of its own each: alone, point by point; alone,
with the points of a step in one call (`optimizer.pack`); and all runs' points in one call. A round
does each once, in an order that is drawn anew; the ratio is taken within a round.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from zobench.bench.clock import seconds_of
from zobench.bench.hardware import hardware
from zobench.bench.table import spread
from zobench.build import build, build_optimizer
from zobench.run.device import device_named
from zobench.schema import composed
from zobench.tasks.batch import Batch
from zobench.tasks.side_by_side import side_by_side
from zobench.zo.batched_runs import BatchedRuns, copies_of

POINTS, STEPS, RUNS = "point by point", "a step at once", "all runs at once"


def parsed() -> Any:
    parser = argparse.ArgumentParser(prog="python -m zobench.bench.batched_runs")
    parser.add_argument("--tunings", nargs="+", default=["lora", "prefix", "head"])
    parser.add_argument("--optimizer", default="mezo")
    parser.add_argument("--model", default="opt_125m")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def pieces_of(tuning: str, options: Any, device: torch.device) -> dict[str, Callable[[], object]]:
    """One step of every run, in each of three ways."""

    def settings(*more: str) -> Any:
        shape = (
            f"task.length={options.tokens}",
            f"task.sizes.train={options.runs * options.batch_size}",
        )
        model = (f"model={options.model}", "model.weights=random", f"tuning={tuning}")
        method = (f"optimizer={options.optimizer}", "optimizer.lr=1e-9")
        return composed("task=random_tokens", *shape, *model, *method, *more)

    made = settings()
    loaded = build(made["model"])
    model = build(made["tuning"])(loaded.model).to(device)
    problem = build(made["task"]).prepare(loaded._replace(model=model), device)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    numbers = range(options.runs)
    batches = [
        problem.batch(range(n * options.batch_size, (n + 1) * options.batch_size)) for n in numbers
    ]
    loss = partial(problem.loss, model)
    nodes = [settings(f"seed={n}")["optimizer"] for n in numbers]
    alone: Any = [build_optimizer(node, trained) for node in nodes]
    most = 2 * max(optimizer.estimator.directions for optimizer in alone)
    packed = [build_optimizer(node | {"pack": most}, trained, model) for node in nodes]
    members: Any = [build_optimizer(node, copies_of(model).items()) for node in nodes]
    batched = BatchedRuns[Batch](model, members, most * options.runs)

    def one_by_one(optimizers: Sequence[Any]) -> None:
        for optimizer, batch in zip(optimizers, batches, strict=True):
            optimizer.step(partial(loss, batch))

    return {
        POINTS: partial(one_by_one, alone),
        STEPS: partial(one_by_one, packed),
        RUNS: partial(
            batched.step, dict(enumerate(batches)), lambda rows: side_by_side(rows, loss)
        ),
    }


def timed(pieces: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> Any:
    """{piece: seconds of each round}; each is done once before the clock starts."""
    times: dict[str, list[float]] = {name: [] for name in pieces}
    order, chance = list(pieces), random.Random(0)
    for piece in pieces.values():
        piece()
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            times[name].append(seconds_of(pieces[name], device))
    return times


def main() -> None:
    options = parsed()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = device_named(options.device)
    print(", ".join(f"{name} {value}" for name, value in hardware(device).items() if value))
    shape = f"{options.batch_size} x {options.tokens} tokens"
    print(f"{options.model}, {options.optimizer}, {options.runs} runs, {shape}; seconds, and over")
    print(f"'{POINTS}'; medians with the least and the most of {options.rounds} rounds\n")
    print(f"| tuning | {POINTS}, s | {STEPS} / {POINTS} | {RUNS} / {POINTS} | {RUNS} / {STEPS} |")
    print("|---|--:|--:|--:|--:|")
    for tuning in options.tunings:
        times = timed(pieces_of(tuning, options, device), options.rounds, device)
        cells = [spread(times[POINTS])]
        for name, base in ((STEPS, POINTS), (RUNS, POINTS), (RUNS, STEPS)):
            ratios = zip(times[name], times[base], strict=True)
            cells.append(spread([one / other for one, other in ratios]))
        print(f"| {tuning} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
