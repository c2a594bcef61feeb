"""The measurements of `make gpu`, a function per section, which yields one flat row at a time.

Each takes the device and its sizes, so that a CPU can run it with tiny ones.
"""

import csv
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zobench.bench.clock import seconds_of
from zobench.bench.fits import GIB, need_of
from zobench.bench.kernel_checks import CHECKS
from zobench.bench.memory import measure, overrides_of
from zobench.bench.subject import Subject, subject_of
from zobench.build import build_optimizer
from zobench.offload.points import OffloadedPoints
from zobench.paths import PACKAGE_DIR
from zobench.run.meter import Meter
from zobench.run.steps import step_of
from zobench.schema import composed
from zobench.zo.directions import Drawn
from zobench.zo.moves import Move, Term
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes.apply import apply_moves
from zobench.zo.space import Slot

Row = dict[str, Any]
STEPS = (
    "mezo",
    "'mezo arithmetic=inplace'",
    "'mezo sampler=rademacher arithmetic=inplace'",
    "'mezo arithmetic=inplace optimizer.graph=true'",
)
GRAPHS = ("mezo", "'mezo optimizer.graph=true'")
SEEDS = ("mezo", "conmezo", "ldsd_sgd", "loren", "curvzo")


def kernels(device: torch.device, names: Sequence[str] = tuple(CHECKS)) -> Iterator[Row]:
    """Every check of the passes against the CPU's."""
    for name in names:
        start = time.perf_counter()
        try:
            CHECKS[name](device)
            found = "passed"
        except Exception as error:  # what is wrong is the result
            found = f"FAILED: {type(error).__name__}: {error}".splitlines()[0]
        title = (CHECKS[name].__doc__ or "").strip()
        yield {"check": title, "result": found, "seconds": time.perf_counter() - start}


def steps(
    device: torch.device, benches: Sequence[Sequence[str]], rows: Sequence[str], folder: Path
) -> Iterator[Row]:
    """`zobench bench` of those rows, once for each list of overrides; its own files in `folder`."""
    from zobench.bench import app

    for number, overrides in enumerate(benches):
        out = folder / f"gpu-steps-{len(rows)}-{number}.json"
        listed = f"optimizers=[{','.join(rows)}]"
        _empty(device)  # the last model
        app.main([*overrides, f"device={device.type}", "noise=0", listed, f"out={out}"])
        record = json.loads(out.read_text())
        for row in record["rows"]:
            yield {
                "model": f"{record['model']['kind']} {record['model']['parameters'] / 1e6:.4g} M",
                "dtype": record["dtype"],
                "tokens": row["tokens_per_forward"],
                "step": row["row"],
                "ms": 1e3 * statistics.median(row["seconds"]),
                "step / its forwards": statistics.median(row["ratios"]),
                "from": min(row["ratios"]),
                "to": max(row["ratios"]),
                "peak / a forward's": row["memory_over_forward"],
            }


def memory(
    device: torch.device,
    subjects: Sequence[tuple[str, int, int]],
    number: int,
    more: Sequence[str] = (),
) -> Iterator[Row]:
    """Peak and seconds of a step in each arithmetic, beside a forward of the same loss.

    subjects: model, examples and tokens of a batch, logits at label places. number: of steps timed.
    more: overrides of all models.
    """
    for model, batch, tokens in subjects:
        subject = _subject(device, model, batch, tokens, more)
        loss, meter = subject.counted(), Meter(device)
        shown = {"model": model, "dtype": _dtype(subject), "batch": f"{batch} x {tokens}"}
        once = torch.no_grad()(partial(_read, loss, subject.batch))
        pure = _measured(device, meter, "forward", once, number)
        yield shown | {"what": "forward"} | pure | {"peak / a forward's": 1.0}
        for arithmetic in ("inplace", "stochastic", "exact"):
            optimizer = _optimizer(subject, model, arithmetic)
            take = step_of(optimizer, subject.counted_for(optimizer))
            step = partial(take, subject.batch)
            row = _measured(device, meter, arithmetic, step, number)
            row["peak / a forward's"] = row["peak GiB"] / pure["peak GiB"]
            if published := _published(model, batch):
                row["MeZO's paper (A100), s"] = published
            yield shown | {"what": f"mezo, {arithmetic}"} | row
            del step, take, optimizer
            _empty(device)
        del subject, loss, once
        _empty(device)


def offloaded(
    device: torch.device,
    subjects: Sequence[tuple[str, int, int]],
    number: int,
    more: Sequence[str] = (),
) -> Iterator[Row]:
    """Peak and seconds of a step with all weights on the device, and with layers in main memory.

    The losses of the two should be equal to the bit. Arguments as in `memory`.
    """
    for model, batch, tokens in subjects:
        plain: list[float] = []
        for offload in ("null", "cpu"):
            own = [*more, f"model.offload={offload}"]
            row, losses = _stepped(device, model, batch, tokens, number, own)
            _empty(device)
            plain = plain or losses
            settings = composed(*_overrides(device, model, own), f"train.batch_size={batch}")
            said = need_of(settings, tokens, gpu=device.type == "cuda").peak / GIB
            shown = {"model": model, "batch": f"{batch} x {tokens}", "model.offload": offload}
            yield shown | row | {"fits says": said, "losses are equal": losses == plain}


def _stepped(
    device: torch.device, model: str, batch: int, tokens: int, number: int, more: Sequence[str]
) -> tuple[Row, list[float]]:
    """Peak and seconds of exact steps, and their losses."""
    subject, meter = _subject(device, model, batch, tokens, more), Meter(device)
    optimizer = _optimizer(subject, model, "exact")
    if subject.offload is not None:
        optimizer.evaluate_by(OffloadedPoints(subject.offload, optimizer.engine).values)
    take, losses = step_of(optimizer, subject.counted()), list[float]()
    row = _measured(device, meter, "steps", lambda: losses.append(take(subject.batch)), number)
    return {"dtype": _dtype(subject)} | row, losses


def predicted(
    device: torch.device, rows: Sequence[str], of: Sequence[str], batch: int, tokens: int
) -> Iterator[Row]:
    """Peaks of steps, and what `zobench fits` says of them; arguments as in `bench.memory`."""
    for row in rows:
        overrides = overrides_of(row, of, batch)
        peak = measure(overrides, tokens, 3, device)["peak_gib"]
        _empty(device)
        gpu = device.type == "cuda"
        said = need_of(composed(*overrides), tokens, gpu=gpu).peak / GIB
        yield {"row": row, "peak GiB": peak, "fits says": said, "over": said / peak}


def agreement(
    device: torch.device, model: str, batch: int, tokens: int, number: int, more: Sequence[str] = ()
) -> Iterator[Row]:
    """float32 steps on a CPU and on the device from the same weights: z, losses and weights."""
    here = _subject(torch.device("cpu"), model, batch, tokens, [*more, "model.dtype=float32"])
    there = _subject(device, model, batch, tokens, [*more, "model.dtype=float32"])
    tensors = [
        (ours.data, theirs.data)
        for (_, ours), (_, theirs) in zip(here.trainable, there.trainable, strict=True)
    ]
    for ours, theirs in tensors:
        theirs.copy_(ours)
    pair = [(subject, _optimizer(subject, model, "inplace")) for subject in (here, there)]
    drawn = [list(map(_z, optimizer.engine.slots)) for _, optimizer in pair]
    losses: list[list[float]] = []
    for subject, optimizer in pair:
        take = step_of(optimizer, subject.counted())
        losses.append([take(subject.batch) for _ in range(number)])
    gaps = [abs(a - b) for a, b in zip(*losses, strict=True)]
    far = sum(float((a.double() - b.double().cpu()).square().sum()) for a, b in tensors)
    near = sum(float(a.double().square().sum()) for a, _ in tensors)
    yield {
        "model": model,
        "steps": number,
        "z is equal to the bit": all(map(torch.equal, *drawn)),
        "largest loss gap": max(gaps),
        "last loss on the CPU": losses[0][-1],
        "last on the device": losses[1][-1],
        "weights apart, relative": (far / near) ** 0.5,
    }


def _subject(
    device: torch.device, model: str, batch: int, tokens: int, more: Sequence[str]
) -> Subject:
    """A model of random weights and its batch."""
    settings = composed(*_overrides(device, model, more))
    sizes = {"batch_size": batch, "tokens": tokens, "logits": "labels", "seed": 0}
    return subject_of({**settings, **sizes}, device)


def _overrides(device: torch.device, model: str, more: Sequence[str]) -> list[str]:
    overrides = [f"model={model}", "++model.path=null", "model.weights=random", "tuning=full"]
    return [*overrides, "model.labels=[0,1]", f"model.weights_device={device.type}", *more]


def _optimizer(subject: Subject, model: str, arithmetic: str) -> ZOOptimizer:
    settings = composed(f"model={model}", "++model.path=null", f"arithmetic={arithmetic}")
    optimizer = build_optimizer(settings["optimizer"], subject.trainable, subject.model)
    assert isinstance(optimizer, ZOOptimizer)
    return optimizer


def _read(loss: Callable[[Any], Any], batch: Any) -> float:
    return float(loss(batch))


def _measured(
    device: torch.device, meter: Meter, name: str, once: Callable[[], object], number: int
) -> Row:
    """Peak GiB and the median of seconds, after a first one that is not counted."""
    once()
    _empty(device)
    with meter.phase(name):
        times = [seconds_of(once, device) for _ in range(number)]
    return {"peak GiB": meter.peak_gib(name), "seconds": statistics.median(times)}


def _empty(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _dtype(subject: Subject) -> str:
    return str(subject.trainable[0][1].dtype).removeprefix("torch.")


def _published(model: str, batch: int) -> float | None:
    """Seconds per step of MeZO's table 23, which is MultiRC on an A100."""
    name = model.replace("opt_1_3b", "opt-1.3b").replace("_", "-")
    with (PACKAGE_DIR / "published" / "published.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["table"], row["model"], row["method"], row["setting"].split(";")[0]
            if key == ("T23", name, "mezo", f"bs{batch}"):
                return float(row["value"])
    return None


def _z(slot: Slot) -> torch.Tensor:
    """The pass's own z of step 0 on the slot."""
    z = torch.zeros(slot.numel, device=slot.parameter.device)
    apply_moves([Move(z, 1, [Term(Drawn.normal((0, 0, 0), slot.id), 1.0)])])
    return z.cpu()
