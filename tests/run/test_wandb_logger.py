"""What the W&B mirror of a run holds, read from the offline file: axes, summary, config, table."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.wandb_file import items, records
from zobench.paths import conf_dir
from zobench.run.folder import RunFolder, read_json, write_predictions
from zobench.run.loggers.wandb import WandbLogger
from zobench.run.loggers.wandb_config import wandb_config
from zobench.tasks.problem import Answer

Mirrored = tuple[Path, dict[str, Any], dict[str, list[Any]]]

ANSWERS = [Answer('great, "so"', "great", 1.0), Answer("", "terrible", 0.25)]
META: dict[str, Any] = {
    **{"id": "00000000", "name": "n", "suite": "s", "setting": "11111111", "seed": 3},
    "choices": {"model": "m", "tuning": "full", "task": "t", "optimizer": "o", "sampler": "cone"},
}


@pytest.fixture(scope="module")
def mirrored(
    compose: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Mirrored:
    """A short run with predictions: its folder, its settings and W&B's records of it by kind."""
    root = tmp_path_factory.mktemp("somebody")
    settings = compose(
        *("optimizer=conmezo", "model=hf", f"model.path={root}/models/opt", "seed=3"),
        *("logger=wandb", "logger.wandb.entity=me", f"runs_root={root}"),
    )
    folder = RunFolder(root / "run")
    folder.path.mkdir()
    write_predictions(folder.predictions, ANSWERS)
    logger = WandbLogger(project="p", entity=None, mode="offline", tags=["mine"], predictions=True)
    logger.begin(folder, settings, META, [])
    for step, loss in enumerate((0.5, 0.2, 0.4)):
        costs = {"cost/forwards": 2 * step, "cost/tokens": 9 * step, "time/train_s": 0.1 * step}
        row = {"dev/loss": loss, "dev/accuracy": 1 - loss, "memory/peak_gib": 1 + loss}
        logger.log({"step": step, **row, **costs})
    logger.log({"step": 3, "train/loss": None, "test/accuracy": 0.7})
    logger.end({"status": "done", "dev": {"loss": 0.2}, "test": {"accuracy": 0.7}})
    found: dict[str, list[Any]] = {}
    for kind, message in records(folder.path):
        found.setdefault(kind, []).append(message)
    return folder.path, settings, found


def test_metrics_have_four_axes_and_a_summary(
    mirrored: Mirrored,
) -> None:
    """Steps unless another axis is chosen; the best of dev while it runs, the result at the end.

    Group and job type are suite and optimizer, which is what W&B's own columns group by.
    """
    _, _, found = mirrored
    begun = found["run"][0]
    assert (begun.run_group, begun.job_type) == ("s", "o")
    assert list(begun.tags) == ["t", "m", "full", "mine"]
    metrics = {metric.name or metric.glob_name: metric for metric in found["metric"]}
    axes = {"step", "cost/forwards", "cost/tokens", "time/train_s"}
    assert {name for name, metric in metrics.items() if not metric.step_metric} == axes
    assert {m.step_metric for name, m in metrics.items() if name not in axes} == {"step"}
    assert "*" in metrics
    during: dict[str, Any] = {}
    for message in found["summary"]:
        for key, value in items(message.update).items():
            during.setdefault(key, []).append(value)
    assert during["dev/loss"][-2:] == [{"min": 0.2}, 0.2]
    assert during["dev/accuracy"][-1] == {"max": 0.8}
    assert during["memory/peak_gib"][-1] == {"max": 1.5}
    assert during["test/accuracy"][-1] == 0.7


def test_the_config_names_what_was_chosen_and_keeps_the_rest(
    mirrored: Mirrored,
) -> None:
    """Options to group by, single values under one key each without a dot, and all settings.

    The folders of this machine and who logs where are not told.
    """
    folder, settings, found = mirrored
    config = items(found["run"][0].config.update)
    choices = {key: config[key] for key in ("model", "tuning", "task", "optimizer", "sampler")}
    assert choices == META["choices"]
    assert (config["seed"], config["setting"], config["suite"]) == (3, "11111111", "s")
    assert config["optimizer/lr"] == settings["optimizer"]["lr"]
    assert config["optimizer/sampler"] == "Cone"
    assert config["optimizer/sampler/theta"] == settings["optimizer"]["sampler"]["theta"]
    assert config["train/batch_size"] == 16
    assert config["model/path"] == config["settings"]["model"]["path"] == "opt"
    assert config["settings"]["optimizer"]["estimator"]["queries"] == 1
    assert config["meta"] == META
    nested = ("settings", "meta", "_wandb")
    for key, value in config.items():
        assert "." not in key
        assert key in nested or isinstance(value, bool | int | float | str), key
    text = json.dumps({k: v for k, v in config.items() if k != "_wandb"})
    assert str(folder.parent) not in text and "logger" not in config["settings"]


def test_secrets_and_long_texts_are_left_out() -> None:
    """A key, token or password among somebody's own settings stays; a number of tokens does not."""
    model = {"api_key": "k", "hf_token": "k", "password": "k", "new_tokens": 4, "text": "x" * 500}
    given = {"model": model, "optimizer": {"_target_": "a.b.SGD", "lr": 0.1, "eps": None}}
    config = wandb_config(given, META)
    assert config["model/new_tokens"] == 4 and "model/text" not in config
    assert config["settings"]["model"] == {"new_tokens": 4, "text": "x" * 500}
    assert config["optimizer"] == "o" and "optimizer/eps" not in config
    assert "sampler" not in config  # this optimizer has none, whatever the group's option is


def test_predictions_are_an_optional_table(
    mirrored: Mirrored,
) -> None:
    """The table holds what the file holds, with numbers as numbers."""
    folder, _, found = mirrored
    [logged_table] = [
        row["predictions"] for r in found["history"] if "predictions" in (row := _nest(r.item))
    ]
    assert (logged_table["nrows"], logged_table["ncols"]) == (2, 4)
    [file] = folder.glob("wandb/offline-run-*/files/media/table/*.json")
    table = json.loads(file.read_text())
    with gzip.open(folder / "predictions.csv.gz", "rt", newline="") as text:
        assert table["columns"] == next(csv.reader(text))
    assert table["data"] == [[n, *answer] for n, answer in enumerate(ANSWERS)]


def _nest(message: Any) -> dict[str, Any]:
    """History items as a tree: W&B writes the parts of a table under keys of their own."""
    tree: dict[str, Any] = {}
    for item in message:
        *path, last = item.nested_key or [item.key]
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return tree


def test_an_aborted_run_is_closed_with_what_it_had(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Its rows are on disk, and W&B sees a failure."""
    (tmp_path / "run").mkdir()
    logger = WandbLogger(project="p", entity=None, mode="offline", tags=[], predictions=True)
    logger.begin(RunFolder(tmp_path / "run"), compose(), META, [])
    logger.log({"step": 0, "dev/loss": 0.5})
    logger.abort()
    found = list(records(tmp_path / "run"))
    assert [items(m.item)["dev/loss"] for kind, m in found if kind == "history"] == [0.5]
    assert [message.exit_code for kind, message in found if kind == "exit"] == [1]


def test_a_resumed_offline_run_has_every_row_once(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The killed attempt's file gives way to one of all rows: `zobench sync` sends one run."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    rows = [{"step": step, "dev/loss": 0.5 - step / 10} for step in range(4)]
    for known, new in ((rows[:0], rows[:2]), (rows[:2], rows[2:])):
        logger = WandbLogger(project="p", entity=None, mode="offline", tags=[])
        logger.begin(folder, compose(), META, known)
        for row in new:
            logger.log(row)
        logger.abort()
    found = [items(m.item) for kind, m in records(folder.path) if kind == "history"]
    assert [{k: row[k] for k in ("step", "dev/loss")} for row in found] == rows
    known = read_json(folder.meta)["wandb"]
    assert [m.run_id for kind, m in records(folder.path) if kind == "run"] == [known]


@pytest.mark.parametrize(("there", "known"), [(0, 2), (1, 2), (2, 2), (3, 2), (5, 2), (3, 0)])
def test_a_resumed_online_run_sends_only_missing_rows(
    compose: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    known: int,
) -> None:
    """It is resumed under its id; the server ends up with every row once, whatever it had."""
    import wandb

    class Server:
        step = there

        def __init__(self) -> None:
            self.rows: list[Any] = [{"step": step} for step in range(there)]

        def define_metric(self, *_: Any, **__: Any) -> None: ...

        def log(self, row: Any) -> None:
            self.rows.append(row)

    server, asked = Server(), {}
    monkeypatch.setattr(wandb, "init", lambda **settings: asked.update(settings) or server)
    (tmp_path / "run").mkdir()
    rows: list[dict[str, float | None]] = [{"step": step} for step in range(6)]
    logger = WandbLogger(project="p", entity=None, mode="online", tags=[])
    logger.begin(RunFolder(tmp_path / "run"), compose(), META, rows[:known])
    for row in rows[known:]:
        logger.log(row)
    assert server.rows == rows
    known = read_json(tmp_path / "run" / "meta.json")["wandb"]
    assert (asked["id"], asked["resume"]) == (known, "allow")


def test_the_yaml_asks_for_no_table_by_default() -> None:
    """What the test examples say stays here unless someone wants it in W&B."""
    node = yaml.safe_load((conf_dir() / "logger" / "wandb.yaml").read_text())
    assert node["wandb"]["predictions"] is False


@pytest.mark.parametrize("key", [None, "0" * 40])
def test_an_api_key_means_online_without_a_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str | None
) -> None:
    """Neither a prompt nor a question to the server, which may not be there."""
    import wandb

    from zobench.run.loggers.wandb import _default_mode

    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    # a server of its own each time, for W&B keeps a key that it has seen
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{19 if key else 9}")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    else:
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
    asked: list[Any] = []
    monkeypatch.setattr(
        "wandb.sdk.wandb_setup._WandbSetup._get_username", lambda w: asked.append(w)
    )
    try:
        assert _default_mode() == ("online" if key else "offline")
    finally:
        wandb.teardown()
    assert not asked
