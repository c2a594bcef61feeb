"""Peak memory and time of training against evaluation alone: `python -m zobench.bench.memory`.

An OPT of random weights (58 M parameters, nothing is downloaded) evaluates, or trains on, one batch
of random tokens; each in a process of its own, so that a peak is the peak of that alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

import torch

ROWS = (
    *("mezo", "conmezo", "loren", "curvzo", "ldsd_sgd", "mezo_adam"),
    *("lomo", "adamw_in_backward", "sgd", "adafactor", "apollo_mini", "galore", "came", "muon"),
    *("adamw_checkpointed", "adamw"),
)


def measure(row: str, size: int, length: int, steps: int) -> dict[str, float]:
    """The number of parameters, peak resident GiB, and median seconds of a step or evaluation.

    row: of conf/optimizer, or `evaluate`. size: rows of a batch; length: tokens of a row.
    """
    from zobench.bench.clock import seconds_of
    from zobench.models.language_model import load
    from zobench.run.closure import CountedLoss
    from zobench.run.meter import Meter
    from zobench.run.steps import step_of
    from zobench.tasks.batch import Batch, collate
    from zobench.tasks.encoding import Candidate, Encoded
    from zobench.tasks.losses import ChoiceLoss
    from zobench.tasks.scoring import language_scores

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    meter = Meter(device)
    sizes = {"hidden_size": 512, "word_embed_proj_dim": 512, "ffn_dim": 2048}
    sizes |= {"num_hidden_layers": 10, "num_attention_heads": 8, "vocab_size": 50272}
    model = load(weights="random", architecture={"model_type": "opt", **sizes}).model.to(device)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 50000, (size, length + 1), generator=generator).tolist()
    pair = [(Candidate(tuple(r[:-1]), (r[-1],)), Candidate(tuple(r[:-1]), (3,))) for r in ids]
    batch = collate([Encoded(candidates, 0) for candidates in pair], 1, 2048).to(device)

    choose = ChoiceLoss()

    def mean(model: Any, batch: Batch) -> torch.Tensor:
        return choose.of(choose.outputs(model, batch, language_scores), batch)

    loss = CountedLoss(model, mean)
    if row == "evaluate":
        step = torch.no_grad()(lambda batch: float(loss(batch)))
    else:
        step = step_of(_optimizer(row, model), loss)
    with meter.phase("work"):
        seconds = [seconds_of(lambda: step(batch), device) for _ in range(steps)]
    parameters = sum(p.numel() for p in model.parameters())
    peak = {"parameters": float(parameters), "peak_gib": meter.peak_gib("work")}
    return peak | {"seconds": statistics.median(seconds)}


def _optimizer(row: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    """A row of conf/optimizer as in a run, at a negligible rate."""
    from zobench.build import build_optimizer
    from zobench.methods import run_settings_of
    from zobench.run.runner import checkpoint_activations
    from zobench.zo.optimizer import ZOOptimizer

    settings = run_settings_of(row)
    if settings["train"]["checkpointing"]:
        checkpoint_activations(model)
    node = {**settings["optimizer"], "lr": 1e-9}
    optimizer = build_optimizer(node, model.named_parameters(), model)
    model.train(not isinstance(optimizer, ZOOptimizer))
    return optimizer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=ROWS, help="of conf/optimizer")
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # a row to be measured in this process
    chosen = parser.parse_args()
    sizes = chosen.batch, chosen.length, chosen.steps
    if chosen.alone:
        print(json.dumps(measure(chosen.alone, *sizes)))
        return
    names = ("batch", "length", "steps")
    options = [f"--{name}={value}" for name, value in zip(names, sizes, strict=True)]
    base: dict[str, float] = {}
    for row in ("evaluate", *chosen.rows):
        command = [sys.executable, "-m", "zobench.bench.memory", f"--alone={row}", *options]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(answer.stdout.splitlines()[-1])
        if not base:
            base = found
            millions = base["parameters"] / 1e6
            print(f"{millions:.0f} M float32 parameters, {chosen.batch} x {chosen.length} tokens")
            print("| row | peak GiB | over evaluation | seconds a step | over evaluation |")
            print("|---|---:|---:|---:|---:|")
        peak, seconds = found["peak_gib"], found["seconds"]
        ratios = peak / base["peak_gib"], seconds / base["seconds"]
        numbers = f"{peak:.3f} | {ratios[0]:.3g} | {seconds:.3g} | {ratios[1]:.3g}"
        print(f"| {row} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
