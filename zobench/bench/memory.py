"""Peak memory of steps, measured and predicted: `python -m zobench.bench.memory`.

A model of random weights takes steps on one batch of random tokens, each row in a process of its
own, so that a peak is the peak of that alone, and `zobench fits` predicts it. What the
process has before, after steps of a tiny model, is not counted. On a CPU glibc is told to return
freed memory of 64 KiB and more: what it would keep for later is not what a step needs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

ROWS = (
    *("zero_shot", "mezo", "conmezo", "loren", "curvzo", "ldsd_sgd", "mezo_adam", "lomo"),
    *("adalomo", "badam", "lisa", "sgd", "adafactor", "adamw_8bit", "adamw_in_backward", "galore"),
    *("came", "apollo_mini", "muon", "adamw_checkpointed", "adamw", "mezo tuning=lora"),
    *("adamw tuning=lora", "adamw_checkpointed tuning=lora"),
)
# An OPT of 58 M parameters.
MODEL = (
    *("model=opt_125m", "model.architecture.hidden_size=512", "model.architecture.ffn_dim=2048"),
    *("model.architecture.word_embed_proj_dim=512", "model.architecture.num_hidden_layers=10"),
    *("model.architecture.num_attention_heads=8", "model.dtype=float32"),
)
_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 128}
_GIB = 2**30


def overrides_of(row: str, shared: Sequence[str], batch: int) -> list[str]:
    """Of a run: `mezo tuning=lora` is a row of conf/optimizer and more."""
    name, *more = row.split()
    return [*shared, f"optimizer={name}", f"train.batch_size={batch}", *more]


def measure(
    overrides: Sequence[str], tokens: int, steps: int, device: torch.device
) -> dict[str, float]:
    """The number of parameters, peak GiB of steps, and median seconds of one."""
    from zobench.bench.clock import seconds_of
    from zobench.run.meter import Meter
    from zobench.schema import composed

    settings = composed(*overrides)
    small = {**settings, "model": _small(settings["model"])}
    for _ in range(2):
        _, step = _step_of(small, 8, device)
        step()
    meter = Meter(device)
    with meter.phase("before"):
        pass  # a peak begins at what the process has
    before = meter.peak_gib("before")
    parameters, step = _step_of(settings, tokens, device)
    with meter.phase("work"):
        seconds = [seconds_of(step, device) for _ in range(steps)]
    found = {"peak_gib": meter.peak_gib("work") - before, "parameters": float(parameters)}
    return found | {"seconds": statistics.median(seconds)}


def _small(model: dict[str, Any]) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    kind = model["architecture"]["model_type"]
    known = CONFIG_MAPPING[kind]()
    sizes = {name: size for name, size in _SMALL.items() if hasattr(known, name)}
    if kind == "opt":
        sizes |= {"word_embed_proj_dim": 16, "ffn_dim": 32}
    if hasattr(known, "num_key_value_heads"):
        sizes |= {"num_key_value_heads": 2, "intermediate_size": 32}
    return {**model, "architecture": {"model_type": kind, **sizes}}


def _step_of(settings: Any, tokens: int, device: torch.device) -> tuple[int, Any]:
    """The number of parameters, and a step of a run, at a negligible rate."""
    from zobench.bench.fits import measured_with
    from zobench.bench.subject import subject_of
    from zobench.build import build_optimizer
    from zobench.run.closure import CountedLoss, Parts
    from zobench.run.runner import checkpoint_activations
    from zobench.run.steps import step_of
    from zobench.run.zero_shot import ZeroShot
    from zobench.zo.optimizer import ZOOptimizer

    train = settings["train"]
    chosen = measured_with(settings, tokens)
    subject = subject_of(chosen, device)
    if train["checkpointing"]:
        checkpoint_activations(subject.model)
    node = dict(settings["optimizer"])
    optimizer = build_optimizer(
        node | {"lr": 1e-9} if "lr" in node else node, subject.trainable, subject.model
    )
    precision = train["precision"] and getattr(torch, train["precision"])
    loss = CountedLoss(subject.model, subject.loss, precision)
    count = sum(p.numel() for p in subject.model.parameters())
    if isinstance(optimizer, ZeroShot):
        return count, torch.no_grad()(lambda: float(loss(subject.batch)))
    subject.model.train(not isinstance(optimizer, ZOOptimizer))
    parts = -(-train["batch_size"] // chosen["batch_size"])
    batch: Any = Parts([subject.batch] * parts, [1.0] * parts) if parts > 1 else subject.batch
    return count, partial(step_of(optimizer, loss), batch)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=ROWS, help="of conf/optimizer, with overrides")
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--of", nargs="*", default=MODEL, help="overrides of all rows")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # a row to be measured in this process
    chosen = parser.parse_args()
    if chosen.alone:
        overrides = overrides_of(chosen.alone, chosen.of, chosen.batch)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        print(json.dumps(measure(overrides, chosen.length, chosen.steps, device)))
        return
    from zobench.bench.fits import need_of
    from zobench.schema import composed

    sizes = (f"--{name}={getattr(chosen, name)}" for name in ("batch", "length", "steps"))
    options = [*sizes, "--of", *chosen.of]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    print(f"{chosen.batch} x {chosen.length} tokens, {' '.join(chosen.of)}")
    print("| row | parameters | peak GiB | predicted | seconds a step |\n|---|---:|---:|---:|---:|")
    for row in chosen.rows:
        command = [sys.executable, "-m", "zobench.bench.memory", f"--alone={row}", *options]
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        found = json.loads(answer.stdout.splitlines()[-1])
        settings = composed(*overrides_of(row, chosen.of, chosen.batch))
        need = need_of(settings, chosen.length, gpu=torch.cuda.is_available()).peak / _GIB
        peak = found["peak_gib"]
        predicted = f"{need:.3f} ({100 * (need / peak - 1):+.0f} %)"
        numbers = f"{peak:.3f} | {predicted} | {found['seconds']:.3g}"
        print(f"| {row} | {found['parameters'] / 1e6:.1f} M | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
