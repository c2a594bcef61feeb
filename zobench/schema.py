"""The settings that zobench itself owns; a wrong key or type fails when the config is composed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from zobench.errors import UserError


@dataclass
class Train:
    """How long and on what a run trains."""

    steps: int = 2000
    batch_size: int = 16
    final_lr: float = 1.0  # share of lr left at the last step, reached linearly; 1 is constant
    log_every: int = 20  # steps per line of metrics.jsonl
    eval_every: int = 200  # steps between evaluations of dev, which select the weights to test
    keep_weights: bool = True  # leave best.safetensors in the run folder


@dataclass
class Evaluation:
    """How dev and test are evaluated."""

    batch_size: int = 64


@dataclass
class Table:
    """What `zobench table` shows of the suite unless told otherwise."""

    rows: str = "optimizer"
    columns: str = "task"
    metric: str = "test/accuracy"


@dataclass
class Config:
    """The root of a run's settings; the components below are plain yaml with a `_target_`."""

    model: Any = MISSING
    tuning: Any = MISSING
    task: Any = MISSING
    sampler: Any = MISSING
    estimator: Any = MISSING
    optimizer: Any = MISSING
    logger: Any = MISSING
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
    table: Table = field(default_factory=Table)
    seed: int = 0  # names the noise and the data order; the data itself has task.data_seed
    suite: str = "scratch"  # runs of one suite share a folder and a table
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: int | None = None  # CPU threads of a run; null is torch's choice
    runs_root: str = MISSING


def resolved(config: Any) -> dict[str, Any]:
    """The composed settings as plain data, without the groups that stand inside the optimizer.

    `sampler` and `estimator` are resolved where an optimizer refers to them, and only there: what
    they refer to in turn, such as its eps, need not exist for one that does not.
    """
    settings: dict[str, Any] = {}
    for key in config:
        if key in ("sampler", "estimator"):
            continue
        value = config[key]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        settings[str(key)] = value
    if unknown := settings.keys() - Config.__dataclass_fields__.keys():
        raise UserError(f"no such setting: {', '.join(sorted(unknown))}")
    return settings


_AT_LEAST_ONE = (
    ("train", "batch_size"),
    ("train", "log_every"),
    ("train", "eval_every"),
    ("evaluation", "batch_size"),
)


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Raise UserError for a number of ours that no run could work with."""
    for part, name in _AT_LEAST_ONE:
        if settings[part][name] < 1:
            raise UserError(f"{part}.{name}={settings[part][name]}: must be at least 1")
    if settings["seed"] < 0 or settings["train"]["steps"] < 0:
        raise UserError("seed and train.steps must not be negative")
    if settings["threads"] is not None and settings["threads"] < 1:
        raise UserError(f"threads={settings['threads']}: must be at least 1, or null")
    suite = settings["suite"]
    if not suite or "/" in suite or suite.startswith("."):
        raise UserError(f"suite={suite}: must be a plain folder name")


def register() -> None:
    """Make the schema available to `config.yaml` as `schema`."""
    ConfigStore.instance().store(name="schema", node=Config)
