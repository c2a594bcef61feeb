"""All measurements on a GPU: `make gpu`, in nine minutes; what matters most comes first.

Each section is a process with a limit of its own, so that one that fails, hangs or loses the device
leaves the others alone. When the time is over, the sections that are left are named. Needs torch,
triton, transformers, numba and hydra-core; no network.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from zobench.bench import gpu_evaluation, gpu_sections
from zobench.bench.gaussians import race
from zobench.bench.hardware import hardware
from zobench.bench.rounds import say
from zobench.bench.table import grid
from zobench.errors import UserError

Rows = Iterator[dict[str, Any]]
_NAME = "gpu"
_SECONDS = 540.0  # of all sections
_LEAST = 15.0  # seconds with which a section is begun


class Section(NamedTuple):
    """title; seconds: its process's limit; measure: of the device and the folder of results."""

    title: str
    seconds: int
    measure: Callable[[torch.device, Path], Rows]


def _steps(device: torch.device, folder: Path) -> Rows:
    small, large = ["model=opt_125m"], ["model=opt_1_3b", "dtype=bfloat16", "rounds=3"]
    lengths = (["tokens=64"], ["tokens=256"])
    benches = [[*large, *n, "seconds=15"] for n in lengths]
    benches += [
        [*small, f"dtype={dtype}", *n, "seconds=8"]
        for dtype in ("float32", "bfloat16")
        for n in lengths
    ]
    return gpu_sections.steps(device, benches, gpu_sections.STEPS, folder)


def _graphs(device: torch.device, folder: Path) -> Rows:
    benches = [
        ["model=opt_125m", f"dtype={dtype}", "tokens=32", "rounds=15", "logits=labels"]
        for dtype in ("float32", "bfloat16")
    ]
    return gpu_sections.steps(device, benches, gpu_sections.GRAPHS, folder)


def _captured(device: torch.device, folder: Path) -> Rows:
    models = [["model=opt_125m", "seconds=10"], ["model=opt_1_3b", "seconds=12"]]
    common = ["dtype=bfloat16", "tokens=64", "rounds=5"]
    for capture in ("null", "false"):
        benches = [[*model, *common, f"model.capture={capture}"] for model in models]
        for row in gpu_sections.steps(device, benches, gpu_sections.SEEDS, folder):
            yield {"capture": capture} | row


def _memory(device: torch.device, folder: Path) -> Rows:
    del folder
    half = ["model.dtype=bfloat16"]
    models = [("opt_13b", 16, 400), ("opt_1_3b", 16, 400), ("opt_125m", 16, 400)]
    return gpu_sections.memory(device, [*models, ("roberta_large", 16, 128)], 5, half)


def _offloaded(device: torch.device, folder: Path) -> Rows:
    del folder
    return gpu_sections.offloaded(device, [("opt_13b", 16, 400)], 2, ["model.dtype=bfloat16"])


def _predicted(device: torch.device, folder: Path) -> Rows:
    del folder
    rows = ("mezo", "loren", "lomo", "adamw_checkpointed", "adamw", "adamw tuning=lora")
    of = ("model=opt_1_3b", "model.dtype=bfloat16")
    return gpu_sections.predicted(device, rows, of, 16, 256)


def _evaluation(device: torch.device, folder: Path) -> Rows:
    del folder
    yield from gpu_evaluation.evaluation(device, 872, 128)
    yield from gpu_evaluation.generation(device, 64, 48)


SECTIONS = {
    "kernels": Section(
        "Kernels against the CPU's", 80, lambda device, _: gpu_sections.kernels(device)
    ),
    "agreement": Section(
        "CPU against GPU, float32",
        45,
        lambda device, _: gpu_sections.agreement(device, "opt_125m", 4, 32, 50),
    ),
    "captured": Section("Captured forwards against launched ones, 16 x 64 tokens", 110, _captured),
    "evaluation": Section("Evaluation, OPT-125m, bfloat16", 60, _evaluation),
    "steps": Section("Steps over their forwards, 16 examples", 115, _steps),
    "offloaded": Section("Layers in main memory, 16 x 400 tokens", 110, _offloaded),
    "memory": Section("Memory and seconds of a step", 80, _memory),
    "graph": Section("Captured forwards against whole steps, 16 x 32 tokens", 40, _graphs),
    "predicted": Section("Peaks of steps, OPT-1.3B, 16 x 256 tokens", 35, _predicted),
    "gaussians": Section(
        "Gaussian transforms, one pass over 2^28 numbers",
        30,
        lambda device, _: race(device, 1 << 28, (torch.float32, torch.bfloat16), 20),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """All sections, or those named; 2 where there is no GPU, 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m zobench.bench.gpu", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument(
        "--seconds", type=float, default=_SECONDS, help="for all of them (%(default)g)"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # where a section writes
    given = parser.parse_args(arguments)
    if unknown := set(given.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available():
        print("there is no CUDA device here: nothing was measured", file=sys.stderr)
        return 2
    folder = Path(os.environ.get("ZOBENCH_RUNS") or "runs") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda", 0)
    if given.inside is not None:
        return measured(SECTIONS[given.sections[0]], device, folder, given.inside)
    found: dict[str, dict[str, Any]] = {}
    record = {"date": date.today().isoformat(), **hardware(device), "sections": found, "left": []}
    for name, limit in limited(list(given.sections or SECTIONS), given.seconds, time.monotonic):
        if limit is None:
            record["left"].append(name)
        else:
            found[name] = apart(name, limit)
        text = shown(record)  # after each section: this process may be stopped, too
        (folder / f"{_NAME}.json").write_text(json.dumps(record, indent=1) + "\n")
        (folder / f"{_NAME}.md").write_text(text)
    print(text, end="")
    print(f"written: {folder / _NAME}.json and .md")
    return int(any(section["error"] for section in found.values()))


def limited(
    names: Sequence[str], seconds: float, clock: Callable[[], float]
) -> Iterator[tuple[str, float | None]]:
    """The sections in turn with the seconds that each may take; None for those that are left."""
    end = clock() + seconds
    for name in names:
        left = end - clock()
        yield name, min(SECTIONS[name].seconds, left) if left >= _LEAST else None


def apart(name: str, limit: float) -> dict[str, Any]:
    """The rows of a section in a process of its own, and its failure if there was one."""
    say(f"{name}, at most {limit:.0f} s")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "zobench.bench.gpu", name, "--inside", str(out)]
        error = None
        try:
            status = subprocess.run(
                command, timeout=limit, check=False, stdout=sys.stderr
            ).returncode
            error = f"the process ended with status {status}" if status else None
        except subprocess.TimeoutExpired:
            error = f"not done after {limit:.0f} s; what there was by then is shown"
        found = json.loads(out.read_text()) if out.exists() else {"rows": [], "error": None}
    return {"title": SECTIONS[name].title, **found, "error": found["error"] or error}


def measured(section: Section, device: torch.device, folder: Path, out: Path) -> int:
    """Run a section in this process; every row is written when it is measured."""
    rows: list[dict[str, Any]] = []
    error = None
    try:
        for row in section.measure(device, folder):
            rows.append(row)
            _write(out, {"rows": rows, "error": None})
    except UserError as refused:
        error = str(refused)
    except Exception as failed:  # reported; the other sections continue
        error = f"{type(failed).__name__}: {failed}"
    _write(out, {"rows": rows, "error": error})
    return int(error is not None)


def _write(out: Path, found: Mapping[str, Any]) -> None:
    """Whole or not at all: the process may be stopped at any time."""
    part = out.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(out)


def shown(record: Mapping[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        f"{record['gpu']}; {record['cpu']}; torch {record['torch']}, Python {record['python']};"
        f" {record['date']}; `make gpu`"
    ]
    for section in record["sections"].values():
        lines += ["", f"## {section['title']}", ""]
        if rows := section["rows"]:
            head = list(dict.fromkeys(name for row in rows for name in row))
            lines += grid(head, [[_cell(row.get(name)) for name in head] for row in rows])
        if section["error"]:
            lines += ["", f"FAILED: {section['error']}"]
    if left := record.get("left"):
        lines += ["", f"Left: `python -m zobench.bench.gpu {' '.join(left)}`"]
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
