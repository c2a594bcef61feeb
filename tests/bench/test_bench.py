"""`zobench bench`: what it counts, what it prints and writes, and what it refuses."""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.small_models import small_sizes
from zobench.bench import app
from zobench.bench.pieces import Piece
from zobench.bench.plain import PlainMeZO
from zobench.bench.rounds import timed
from zobench.bench.subject import Subject, subject_of
from zobench.build import build
from zobench.run.closure import CountedLoss

SIZES = small_sizes(2)
SMALL = [f"model.architecture.{name}={size}" for name, size in SIZES.items()]
SMALL += ["threads=1", "batch_size=2", "tokens=8", "noise=3000", "optimizers=[mezo]"]
ROWS = [
    "mezo",
    "conmezo",
    "ldsd_sgd",
    "loren",
    "curvzo",
    "mezo_svrg",
    "mezo sampler=rademacher",
]
Command = Callable[..., tuple[int, str, str]]
Compose = Callable[..., dict[str, Any]]


def listed(rows: list[str]) -> str:
    """The override that chooses these rows."""
    return "optimizers=[" + ",".join(f"'{row}'" for row in rows) + "]"


@pytest.fixture
def bench(command: Command) -> Command:
    """`bench("rounds=1")` on a tiny architecture: exit status, stdout and stderr."""
    return partial(command, "bench", *SMALL)


def written(folder: Path) -> dict[str, Any]:
    """The one JSON that the bench has left in the runs' folder."""
    [path] = (folder / "runs" / "bench").iterdir()
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def cells(table: str) -> dict[str, list[str]]:
    """The cells of every line of the tables, by the first."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: others for first, *others in found}


def test_every_paper_method_is_measured_and_table_and_json_agree(
    bench: Command, compose: Compose, tmp_path: Path
) -> None:
    """Each row has a line with the medians of the raw times, and the forwards its estimator says.

    The record also holds state per parameter and ratios over the pure forward of the same round.
    """
    status, out, err = bench(listed(ROWS), "rounds=2")
    assert status == 0, err
    record, table = written(tmp_path), cells(out)
    assert [row["row"] for row in record["rows"]] == ["forward", "plain MeZO", *ROWS]
    pure = record["rows"][0]["seconds"]
    for row in record["rows"]:
        seconds, forwards, tokens, ratio, state, memory = table[row["row"]]
        for cell, values in ((seconds, row["seconds"]), (ratio, row["ratios"])):
            low, middle, high = min(values), statistics.median(values), max(values)
            assert cell == f"{middle:.3g} ({low:.3g} - {high:.3g})"
        per_forward = [s / f for s, f in zip(row["seconds"], row["forwards"], strict=True)]
        assert row["ratios"] == pytest.approx(
            [a / b for a, b in zip(per_forward, pure, strict=True)]
        )
        assert float(forwards) == pytest.approx(statistics.fmean(row["forwards"]), rel=1e-3)
        assert (tokens, float(memory) > 0) == ("16", True)
        assert float(state) == pytest.approx(row["state_bytes_per_parameter"], rel=5e-3)
        if row["row"] in ROWS:
            node = compose(f"optimizer={row['row'].split()[0]}")["optimizer"]
            estimator = build(node["estimator"])
            assert sum(row["forwards"]) == estimator.cost(3) - estimator.cost(1)  # one to warm up
    states = {row["row"]: row["state_bytes_per_parameter"] for row in record["rows"]}
    assert (states["plain MeZO"], states["mezo"], states["conmezo"]) == (0, 0, 4)
    assert set(record["noise"]) == {"torch normal_ + add_", "normal16", "rademacher", "normal"}
    assert record["model"]["trained"] == record["model"]["parameters"]
    assert "bench: round 2 of 2" in err


def test_a_row_is_composed_as_a_run_composes_it(
    bench: Command, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimizer of a row is that of `zobench model=... optimizer=...` with its overrides."""
    rows = ["loren", "mezo_momentum sampler=cone optimizer.lr=0.5 sampler.theta=1.0"]
    seen: dict[str, Any] = {}

    def measure(subject: Subject, nodes: dict[str, Any], settings: dict[str, Any]) -> Any:
        del subject, settings
        seen.update(nodes)
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "measure", measure)
    bench("seed=3", listed(rows))
    for row in rows:
        name, *own = row.split()
        whole = compose("model=opt_125m", "seed=3", f"optimizer={name}", *own)
        assert seen[row] == whole["optimizer"]


@pytest.mark.parametrize(
    ("more", "width"),
    [
        (["logits=labels", "model.head=classification"], None),
        (["tuning=prefix", "dtype=bfloat16"], "bfloat16"),
        (["tuning=prompt"], "float32"),
        (["logits=labels", "seconds=0.000001", "rounds=50"], None),
    ],
    ids=["head", "prefix", "prompt", "budget"],
)
def test_other_models_tunings_and_losses_are_measured(
    bench: Command, tmp_path: Path, more: list[str], width: str | None
) -> None:
    """Heads, virtual tokens and 16 bits take a step too; a budget of seconds ends the rounds."""
    status, _, err = bench("rounds=1", "noise=0", *more)
    assert status == 0, err
    record = written(tmp_path)
    assert len(record["rows"][-1]["seconds"]) == 1
    assert "noise" not in record
    assert width in (None, record["dtype"])


def test_the_language_loss_is_the_models_own() -> None:
    """`logits=all` is what the model itself returns for labels equal to its input."""
    model = {"_target_": "zobench.models.language_model.load", "weights": "random"}
    node = model | {"architecture": {"model_type": "opt", **SIZES}}
    tuning = {"_target_": "zobench.tuning.full.full", "_partial_": True}
    settings = {"model": node, "tuning": tuning, "logits": "all", "seed": 0}
    subject = subject_of(settings | {"batch_size": 2, "tokens": 8}, torch.device("cpu"))
    ids = subject.batch.input_ids
    own = subject.model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(subject.loss(subject.model, subject.batch), own)


def quadratic(weights: Sequence[tuple[str, Tensor]]) -> Tensor:
    """A loss with another gradient at every weight."""
    return sum((p.square().sum() for _, p in weights), start=torch.zeros(())) / 2


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_plain_step_is_mezos_algorithm(decay: float) -> None:
    """w - lr (g z + decay w), g by losses at w + eps z and w - eps z; vectors do not decay."""
    start = [torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0.5, 2, 5)]
    named = [(n, torch.nn.Parameter(w.clone())) for n, w in zip("ab", start, strict=True)]
    optimizer = PlainMeZO(named, lr=0.05, eps=1e-2, weight_decay=decay, seed=7)
    optimizer.step(lambda: quadratic(named))
    generator = torch.Generator().manual_seed(optimizer.zo_seed)
    z = [torch.normal(0.0, 1.0, w.shape, generator=generator) for w in start]
    slope = sum(float((w * d).sum()) for w, d in zip(start, z, strict=True))
    assert optimizer.projected_grad == pytest.approx(slope, rel=1e-3)
    for (_, after), w, d in zip(named, start, z, strict=True):
        shrink = decay * w if w.dim() > 1 else 0.0
        wanted = w - 0.05 * (optimizer.projected_grad * d + shrink)
        torch.testing.assert_close(after.data, wanted, rtol=0, atol=1e-6)


def test_plain_steps_draw_new_directions() -> None:
    """Two steps have two seeds, and another run's seed gives others."""
    named = [("a", torch.nn.Parameter(torch.ones(3, 3)))]

    def seeds(seed: int) -> list[int]:
        optimizer = PlainMeZO(named, seed=seed)
        found = []
        for _ in range(3):
            optimizer.step(lambda: quadratic(named))
            found.append(optimizer.zo_seed)
        return found

    assert seeds(0) == seeds(0)
    assert len({*seeds(0), *seeds(1)}) == 6


def test_weights_stay_where_they_are_and_rounds_are_shuffled() -> None:
    """A step that replaces the weights' storage has its values copied back before the next one."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    home, order = parameter.data_ptr(), []
    batch: Any = None
    subject = Subject(None, batch, lambda *_: torch.zeros(()), [("w", parameter)], CPU)

    def piece(name: str) -> Piece:
        def once() -> None:
            assert parameter.data_ptr() == home
            order.append(name)
            parameter.data = parameter.data + 1

        return Piece(once, lambda: len(order), CountedLoss(None, subject.loss))

    pieces = {name: piece(name) for name in "abcd"}
    times = timed(subject, pieces, rounds=6, seconds=None, seed=0)
    assert parameter.data.tolist() == [28.0] * 4  # a round to warm up, and six
    rounds = [tuple(order[at : at + 4]) for at in range(4, 28, 4)]
    assert all(sorted(names) == list("abcd") for names in rounds) and len(set(rounds)) > 3
    assert all(t["forwards"] == [1] * 6 and len(t["seconds"]) == 6 for t in times.values())


def test_what_has_state_finds_the_weights_it_left() -> None:
    """Rows with state go on from their own weights, whatever others did; the rest from any."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    batch: Any = None
    subject = Subject(None, batch, lambda *_: torch.zeros(()), [("w", parameter)], CPU)
    seen: dict[str, list[float]] = {"one": [], "two": [], "none": []}

    def piece(name: str, step: float, state: int) -> Piece:
        def once() -> None:
            parameter.data += step
            seen[name].append(float(parameter.data[0]))

        loss = CountedLoss(None, subject.loss)
        return Piece(once, lambda: len(seen[name]), loss, lambda: state)

    pieces = {"one": piece("one", 1, 8), "two": piece("two", 100, 8), "none": piece("none", 5, 0)}
    timed(subject, pieces, rounds=5, seconds=None, seed=1)
    assert seen["one"] == [1, 2, 3, 4, 5, 6]
    assert seen["two"] == [101 + 100 * n for n in range(6)]


CPU = torch.device("cpu")
BAD = [
    ("batch_siz=3", "batch_siz: no such setting"),
    ("+batchsize=3", "no such setting: batchsize"),
    ("rounds=many", "many"),
    ("rounds=0", "rounds=0: must be at least 1"),
    ("seconds=0", "seconds=0.0: must be above 0"),
    ("threads=0", "threads=0"),
    ("logits=some", "logits=some: choose all or labels"),
    ("tokens=1", "tokens=1: logits=all"),
    ("tokens=33", "tokens=33: the model takes 32 at most"),
    ("dtype=int8", "model.dtype=int8: choose"),
    ("model.head=classification", "choose logits=labels"),
    ("model.architecture.layers=3", r"model\.architecture\.layers: no such setting"),
    ("device=tpu9", "device=tpu9: choose"),
    ("tuning=lorra", "tuning/lorra"),
    ("optimizers=[mezoo]", r"optimizer/mezoo[\s\S]*Available options"),
    ("optimizers=[mezo,mezo]", "mezo is listed twice"),
    ("optimizers=[zero_shot]", "zero_shot takes no steps"),
    ("optimizers=['sampler=cone']", "each is the name of an optimizer"),
    ("optimizers=['mezo optimizer.lrr=1']", r"optimizer\.lrr: no such setting"),
    ("optimizers=['mezo optimizer.lr=high']", r"optimizer\.lr=high: expected float"),
    ("optimizers=['mezo train.precision=bfloat16']", "changes train; a row may only choose"),
    ("optimizers=['ldsd_sgd estimator=two_sided']", "needs policy, which neither"),
    ("optimizers=['curvzo sampler.ratio=2']", r"sampler\.ratio=2"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_bad_settings_are_refused_before_anything_is_measured(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str]
) -> None:
    """One or two lines that name the key; no step is taken and nothing is written."""

    def never(*arguments: Any) -> Any:
        raise AssertionError(arguments)

    monkeypatch.setattr(app, "measure", never)
    status, out, err = bench(case[0])
    assert (status, out) == (1, "")
    assert re.search(case[1], err), err
    assert len(err.strip().splitlines()) <= 2, err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_json_goes_where_it_is_told(bench: Command, tmp_path: Path) -> None:
    """`out=` names the file, which the last line repeats; a folder is refused."""
    place = tmp_path / "deep" / "numbers.json"
    few = ("rounds=1", "noise=0")
    status, out, _ = bench(*few, f"out={place}")
    assert status == 0 and out.splitlines()[-1] == f"all times: {place}"
    record = json.loads(place.read_text())
    assert record["command"] in out and record["torch"] == torch.__version__
    status, _, err = bench(*few, f"out={tmp_path}")
    assert status == 1 and "is a folder" in err
