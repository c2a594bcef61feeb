"""Digests of what every row does in 20 steps, to compare before and after a change of zobench/zo.

    python -m tests.golden BEFORE.json
    python -m tests.golden AFTER.json --against BEFORE.json

Each zeroth-order row of conf/optimizer takes its steps in float32, in bfloat16 with exact updates
and in bfloat16 in place: on a net of 400 small tensors, and in a run of the tiny model, whose
ledger is also replayed. Runs in float32 are repeated with packed points, side by side with another
seed, and captured, where a row can do that. What a row refuses is compared as its message.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.hydra_files import read_once
from tests.recorder import capturing
from zobench.build import build_optimizer
from zobench.paths import conf_dir
from zobench.run.folder import RunFolder
from zobench.run.replay import Replayed
from zobench.run.runner import run
from zobench.run.together import run_together
from zobench.schema import composed

STEPS = 20
STORAGE = {
    "float32": (),
    "bfloat16 exact": ("model.dtype=bfloat16",),
    "bfloat16 in place": ("model.dtype=bfloat16", "arithmetic=inplace"),
}
SIZES = ("task.sizes.train=32", "task.sizes.dev=8", "task.sizes.test=8", "train.batch_size=4")
TIMES = (f"budget.steps={STEPS}", f"train.eval_every={STEPS}", "train.log_every=5")
OPTIONS = ("logger=none", "threads=1", "train.select=last", *SIZES, *TIMES)
CHOICES = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}


class Net(nn.Module):
    """200 layers of 8 x 8 with biases: 400 tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(200))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + 0.1 * torch.tanh(layer(x))
        return x


def of_net(words: tuple[str, ...], root: Path) -> dict[str, str]:
    """Digests of the losses and the weights of a net of 400 tensors."""
    del root
    settings = composed(*OPTIONS, *words)
    dtype: torch.dtype = getattr(torch, settings["model"]["dtype"])
    model = Net().to(dtype)
    optimizer: Any = build_optimizer(settings["optimizer"], model.named_parameters(), model)
    rows = torch.randn(STEPS, 4, 8, generator=torch.Generator().manual_seed(1))

    def loss(step: int) -> Tensor:
        return model(rows[step % STEPS].to(dtype)).float().square().mean()

    losses = []
    for step in range(STEPS):
        optimizer.step(partial(loss, step), loss)
        losses.append(optimizer.record)
    return {"losses": digest(repr(losses).encode()), "weights": of_tensors(model.state_dict())}


def of_run(words: tuple[str, ...], root: Path) -> dict[str, str]:
    """Digests of the ledger and the last weights of a run; where it can be replayed, replayed."""
    folder = begun(words, root / "run")
    run(folder)
    found = of_folder(folder)
    replayed = Replayed(folder)
    if replayed.why_not is None:
        replayed.to(STEPS)
        weights = {n: p for n, p in replayed.model.named_parameters() if p.requires_grad}
        kept = load_file(folder.weights)
        same = all(torch.equal(weights[name], kept[name]) for name in weights.keys() & kept.keys())
        found["replayed"] = "the same weights" if same else "OTHER WEIGHTS"
    return found


def of_captured(words: tuple[str, ...], root: Path) -> dict[str, str]:
    """The same of a run whose forwards are captured."""
    with capturing() as recorder:
        return of_run(words, root) | {"graphs": str(recorder.recorded)}


def of_runs_side_by_side(words: tuple[str, ...], root: Path) -> dict[str, str]:
    """Digests of two runs whose steps are evaluated as one batch."""
    folders = [begun((*words, "tuning=lora", f"seed={s}"), root / str(s)) for s in (0, 1)]
    run_together(folders)
    return {
        f"{folder.path.name} {k}": v for folder in folders for k, v in of_folder(folder).items()
    }


def begun(words: tuple[str, ...], path: Path) -> RunFolder:
    """The folder of a run of these settings that has not begun to train."""
    settings, folder = composed(*OPTIONS, *words), RunFolder(path)
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": settings["seed"], "choices": CHOICES}
    folder.begin(settings, meta)
    return folder


def of_folder(folder: RunFolder) -> dict[str, str]:
    """Digests of a finished run."""
    ledger = folder.ledger.read_bytes() if folder.ledger.exists() else b""
    return {"ledger": digest(ledger), "weights": of_tensors(load_file(folder.weights))}


def of_tensors(tensors: dict[str, Tensor]) -> str:
    """A digest of the bits of all tensors."""
    flat = [tensors[name].contiguous().view(torch.uint8).flatten() for name in sorted(tensors)]
    return digest(torch.cat(flat).numpy().tobytes())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def result_of(case: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """What the case gives, or how it was refused."""
    with tempfile.TemporaryDirectory() as root:
        try:
            return case(Path(root))
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def results(rows: list[str]) -> dict[str, dict[str, str]]:
    """Case -> digests."""
    found = {}
    for number, row in enumerate(rows):
        print(f"{row}, {number + 1} of {len(rows)}", file=sys.stderr)
        for storage, words in STORAGE.items():
            given = (f"optimizer={row}", *words)
            found[f"{row}, {storage}, net"] = result_of(partial(of_net, given))
            found[f"{row}, {storage}, run"] = result_of(partial(of_run, given))
        plain = (f"optimizer={row}",)
        found[f"{row}, packed"] = result_of(partial(of_run, (*plain, "optimizer.pack=4")))
        found[f"{row}, captured"] = result_of(partial(of_captured, plain))
        found[f"{row}, side by side"] = result_of(partial(of_runs_side_by_side, plain))
    return found


def is_zeroth_order(row: str) -> bool:
    """Whether an option of conf/optimizer has an estimator."""
    return "estimator" in composed(f"optimizer={row}")["optimizer"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="an older file, to compare with")
    parser.add_argument("--rows", nargs="+", help="these rows alone (default: all)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    read_once()
    every = sorted(path.stem for path in (conf_dir() / "optimizer").iterdir())
    found = results(
        given.rows or [row for row in every if row not in ("zero_shot", "linear_probe")]
    )
    given.out.write_text(json.dumps(found, indent=1))
    print(f"{len(found)} cases, {sum('refused' in case for case in found.values())} refused")
    if given.against:
        before = json.loads(given.against.read_text())
        moved = [case for case in found if found[case] != before.get(case)]
        for case in moved:
            print(f"{case}: {before.get(case)} -> {found[case]}")
        print(f"{len(moved)} differ" if moved else "equal")


if __name__ == "__main__":
    main()
