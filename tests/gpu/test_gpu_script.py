"""`make gpu`: every section with sizes that a CPU can carry, what it prints, and how it fails."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.interpreted import triton_or_skip
from tests.recorder import capturing
from tests.small_models import small_sizes
from zobench.bench import gpu, gpu_evaluation, gpu_sections
from zobench.bench.gaussians import WAYS, race
from zobench.bench.memory import MODEL

CPU = torch.device("cpu")
SMALL = [f"model.architecture.{name}={size}" for name, size in small_sizes(1).items()]


def test_without_a_gpu_nothing_is_measured_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2, no file."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path))
    assert gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "there is no CUDA device here: nothing was measured\n")
    assert not list(tmp_path.iterdir())


def test_steps_are_those_of_the_bench(tmp_path: Path) -> None:
    """A row for the forward, the plain step and each optimizer, per list of overrides."""
    benches = [
        ["model=opt_125m", *SMALL, "batch_size=2", f"tokens={n}", "rounds=1"] for n in (8, 9)
    ]
    rows = list(gpu_sections.steps(CPU, benches, ["mezo", "'mezo arithmetic=exact'"], tmp_path))
    assert [(row["tokens"], row["step"]) for row in rows] == [
        (2 * n, step)
        for n in (8, 9)
        for step in ("forward", "plain MeZO", "mezo", "mezo arithmetic=exact")
    ]
    assert len(list(tmp_path.iterdir())) == 2
    assert all(row["ms"] > 0 and row["peak / a forward's"] > 0 for row in rows)


def test_memory_and_seconds_are_of_each_model_and_arithmetic() -> None:
    """A forward and a step in each arithmetic; MeZO's own seconds where it has some."""
    half = [*SMALL, "model.dtype=bfloat16"]
    rows = list(gpu_sections.memory(CPU, [("opt_125m", 2, 8), ("opt_13b", 16, 8)], 1, half))
    found = [(row["model"], row["what"], row.get("MeZO's paper (A100), s")) for row in rows]
    assert found == [
        (model, what, seconds if what != "forward" else None)
        for model, seconds in (("opt_125m", None), ("opt_13b", 2.702))
        for what in ("forward", "mezo, inplace", "mezo, stochastic", "mezo, exact")
    ]
    assert {row["dtype"] for row in rows} == {"bfloat16"}


def test_peaks_stand_beside_what_was_predicted() -> None:
    """A row for each optimizer, with overrides of its own."""
    rows = list(gpu_sections.predicted(CPU, ["mezo", "adamw tuning=lora"], MODEL, 1, 8))
    assert [row["row"] for row in rows] == ["mezo", "adamw tuning=lora"]
    assert all(row["fits says"] > 0.2 and row["peak GiB"] > 0.2 for row in rows)


def test_a_device_that_agrees_agrees() -> None:
    """A CPU beside itself: equal z, equal losses, equal weights."""
    [row] = gpu_sections.agreement(CPU, "opt_125m", 2, 8, 3, SMALL)
    assert row["z is equal to the bit"] is True
    assert (row["largest loss gap"], row["weights apart, relative"]) == (0.0, 0.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is in `make gpu` itself")
def test_ways_to_a_gaussian_have_mean_0_and_variance_1() -> None:
    """Each way of the race, with the kurtosis that it is known for."""
    triton_or_skip()
    rows = list(race(CPU, 20_000, (torch.float32,), 1))
    assert [row["law"] for row in rows] == list(WAYS)
    for row, kurtosis in zip(rows, (3.0, 1.0, 3.0, 3.0, 2.70, 2.94), strict=True):
        assert abs(row["mean"]) < 0.03 and abs(row["variance"] - 1) < 0.04, row
        assert row["kurtosis"] == pytest.approx(kurtosis, abs=0.15), row


def test_a_section_that_fails_keeps_what_it_had(tmp_path: Path) -> None:
    """Its rows and its error are written, and both are in the Markdown."""

    def measure(device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
        del device, folder
        yield {"what": "first", "ms": 1.23456}
        raise RuntimeError("out of memory")

    section = gpu.Section("Sizes", 1, measure)
    out = tmp_path / "rows.json"
    assert gpu.measured(section, CPU, tmp_path, out) == 1
    found = {"title": "Sizes", **json.loads(out.read_text())}
    about = {"gpu": "G", "cpu": "C", "torch": "T", "python": "P", "date": "D"}
    text = gpu.shown({**about, "sections": {"sizes": found}})
    assert "| first | 1.235 |" in text and "FAILED: RuntimeError: out of memory" in text


def test_offloaded_steps_have_the_losses_of_plain_ones() -> None:
    """A row with all weights on the device, and one with the layers in main memory."""
    half = [*SMALL, "model.dtype=bfloat16"]
    rows = list(gpu_sections.offloaded(CPU, [("opt_125m", 2, 8)], 2, half))
    assert [(row["model.offload"], row["losses are equal"]) for row in rows] == [
        ("null", True),
        ("cpu", True),
    ]
    assert all(row["seconds"] > 0 and row["fits says"] > 0 for row in rows)


def test_evaluation_is_timed_launched_and_captured() -> None:
    """On the same rows, to the same loss; and the same texts by either cache."""
    sizes = [
        *SMALL,
        "model.architecture.vocab_size=2048",
        "task.truncation=left",
        "task.max_length=24",
    ]
    with capturing() as recorder:
        rows = list(gpu_evaluation.evaluation(CPU, 3, 1, sizes))
        texts = list(gpu_evaluation.generation(CPU, 2, 4, sizes))
    hows = ["a row and a choice at a time", "launched", "captured, first", "captured"]
    assert [row["how"] for row in rows] == 2 * hows
    assert all(row.get("loss apart", 0.0) < 1e-2 and row["rows a second"] > 0 for row in rows)
    assert [row["how"] for row in texts] == ["growing cache", "static cache"]
    assert all(row["texts are equal"] == 1.0 for row in texts)
    assert recorder.replayed > recorder.recorded > 0


def test_sections_that_the_time_does_not_suffice_for_are_named() -> None:
    """Each gets its own limit, or what is left; the defaults fit in one command of ten minutes."""
    assert gpu._SECONDS < 600
    times = iter([0.0, 0.0, 70.0, 90.0, 100.0])
    names = ["kernels", "agreement", "captured", "steps"]
    given = list(gpu.limited(names, 100.0, lambda: next(times)))
    assert given == [("kernels", 80), ("agreement", 30.0), ("captured", None), ("steps", None)]
    about = {"gpu": "G", "cpu": "C", "torch": "T", "python": "P", "date": "D", "sections": {}}
    text = gpu.shown({**about, "left": ["captured", "steps"]})
    assert "Left: `python -m zobench.bench.gpu captured steps`" in text
