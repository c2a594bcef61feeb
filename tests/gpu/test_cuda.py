"""What needs a GPU: the noise is the CPU's, and a run on CUDA works and repeats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zobench import methods
from zobench.run.folder import RunFolder
from zobench.run.replay import Replayed, differing
from zobench.run.runner import run
from zobench.zo import noise
from zobench.zo.noise import Law, Stream

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


@pytest.mark.parametrize("law", [Law.NORMAL16, Law.RADEMACHER])
def test_cuda_draws_the_noise_of_the_cpu(law: Law) -> None:
    """The exact laws have the same bits on both devices, and adding them rounds alike."""
    stream = Stream(noise.mix(1, 2, 3), 4)
    here, there = torch.device("cpu"), torch.device("cuda")
    assert torch.equal(
        noise.draw(law, stream, 5, 5000, here), noise.draw(law, stream, 5, 5000, there).cpu()
    )
    ours = torch.linspace(-1, 1, 5000)
    theirs = ours.cuda()
    for out in (ours, theirs):
        noise.add(out, law, stream, 5, 1e-3, -2e-3)
    assert torch.equal(ours, theirs.cpu())


def test_a_run_on_cuda_repeats_and_measures_memory(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Two runs have equal weights; the peak is that of the device, per phase."""
    weights = []
    for at in ("one", "two"):
        folder = RunFolder(tmp_path / at)
        settings = compose("logger=none", "device=cuda", "budget.steps=20", "train.eval_every=10")
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "mezo"}
        folder.begin(settings, {"id": "0", "name": at, "suite": "s", "choices": choices})
        result = run(folder)
        assert 0 < result["memory"]["peak_gib"] < 1
        assert set(result["memory"]["phases"]) == {"load", "train", "eval"}
        weights.append(folder.weights.read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=mezo",),
        ("optimizer=mezo", "optimizer.graph=true"),
        ("optimizer=ldsd_adamm", "model.dtype=bfloat16"),
        ("optimizer=loren",),
    ],
    ids=" ".join,
)
def test_a_run_on_cuda_is_replayed_and_goes_on(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Its ledger gives the same bits; cut in the middle, the run ends with them, too."""
    folders = {at: RunFolder(tmp_path / at) for at in ("whole", "cut")}
    short = ("logger=none", "device=cuda", "budget.steps=12", "train.eval_every=4")
    settings = compose(*short, "train.select=last", *overrides)
    choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
    for at, folder in folders.items():
        meta = {"id": "0", "name": at, "suite": "s", "choices": choices}
        folder.begin(settings, meta)
        run(folder)
        replayed = Replayed(folder)
        replayed.to(12)
        assert not differing(folder, replayed.model)
        if at == "cut":
            folder.result.unlink()
            folder.ledger.write_bytes(folder.ledger.read_bytes()[:-90])
            folder.begin(settings, meta)
            run(folder)
    for name in ("ledger", "weights"):
        assert (
            getattr(folders["cut"], name).read_bytes()
            == getattr(folders["whole"], name).read_bytes()
        )


def test_every_row_repeats_on_cuda() -> None:
    """Two steps of each row's own settings on a device leave the same bits, state included."""
    for row in methods.rows():
        results = []
        for _ in range(2):
            model = methods.layers(2, 16, 16).cuda()
            optimizer = methods.optimizer_of(row, model)
            methods.take_steps(optimizer, model, 2)
            slots = optimizer.engine.slots
            results.append([t for s in slots for t in (s.flat, *s.buffers.values())])
        assert all(map(torch.equal, *results)), row
