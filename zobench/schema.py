"""The settings that zobench itself owns; a wrong key or type fails when the config is composed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from zobench.budget import DEFAULT_STEPS, check_budget, steps_for
from zobench.cells import Cells
from zobench.errors import UserError
from zobench.names import plain_name
from zobench.paths import conf_dir


@dataclass
class Budget:
    """What a run may spend: one of the three; 2000 steps where none is given."""

    steps: int | None = None  # of the optimizer
    forwards: int | None = None  # train.log_every and train.eval_every then count forwards, too
    seconds: float | None = None  # of training; evaluations are not counted


@dataclass
class Train:
    """On what a run trains, and how."""

    batch_size: int = 16
    final_lr: float = 1.0  # share of lr left at the last step, reached linearly; 1 is constant
    warmup: int | None = None  # steps that lr takes to rise from 0, linearly
    micro_batch_size: int | None = None  # evaluate a batch in parts: same loss, less memory
    precision: str | None = None  # bfloat16: arithmetic under autocast, weights as they are
    grad_clip: float | None = None  # largest gradient norm, by back-propagation only
    checkpointing: bool | None = None  # recompute activations, by back-propagation only
    select: str | None = None  # last: test the last weights; null: those with the lowest dev loss
    nonfinite: str | None = None  # skip: leave out steps whose loss is not finite; stop, null: end
    diverged_above: float | None = None  # end at a training loss of so many times the first line's
    patience: int | None = None  # end after so many evaluations without a lower loss on dev
    log_every: int = 20  # steps per line of metrics.jsonl
    eval_every: int = 200  # steps between evaluations of dev
    keep_weights: bool = True  # leave best.safetensors in the run folder
    export: bool | None = None  # leave a folder for from_pretrained in the run folder


@dataclass
class Checkpoint:
    """What a run that was killed goes on from where its ledger cannot be replayed."""

    steps: int | None = None  # between two of them
    minutes: float | None = 10.0  # between two of them
    beside_ledger: bool = False  # also where it can: a long replay then begins at the last one


@dataclass
class Retries:
    """How often a run is tried again within one launch, by kind of failure."""

    killed: int = 1  # by a signal, from outside; it goes on from where it was
    crash: int = 0
    memory: int = 3  # each with batches in parts of half the size


@dataclass
class Ranks:
    """Of one run in several processes, which torchrun starts."""

    check_every: int | None = 100  # steps between comparisons of their weights' hashes


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
    target: float | None = None  # also show the forwards until dev/accuracy reached it
    select: str = "mean"  # dev chooses a cell's setting: one for all seeds, or (seed) one for each
    baseline: str | None = None  # the row that the others are tested against, example by example


@dataclass
class Published:
    """Which published numbers stand beside the suite's own: rows of `published.csv`.

    A run's method, task and tuning are its choices, under the paper's names where `names` has them.
    """

    paper: str | None = None
    table: str | None = None
    model: str | None = None
    setting: str | None = None  # exactly as in the file
    metric: str = "accuracy"
    names: dict[str, str] = field(default_factory=dict)  # our option: the paper's name


@dataclass
class Plot:
    """What `zobench plot` shows of the suite unless told otherwise; null is the kind's own."""

    kind: str | None = None  # curves, target, pareto or rates; null is curves
    x: str | None = None  # a metric, or for curves also a setting: one point per value
    y: str | None = None
    lines: str | None = None  # null is optimizer
    log: str | None = None  # axes with a logarithmic scale: none, x, y or both


@dataclass
class Diagnose:
    """The search directions against the true gradient, which costs a backward pass each time."""

    every: int | None = None  # steps between diagnoses; null is never


@dataclass
class Config:
    """The root of a run's settings; the components below are plain yaml with a `_target_`."""

    model: Any = MISSING
    tuning: Any = MISSING
    task: Any = MISSING
    data: Any = None  # where each corpus is, for tasks to refer to; null is the hub
    sampler: Any = MISSING
    estimator: Any = MISSING
    rule: Any = MISSING
    arithmetic: Any = None  # of 16-bit weights; null is exact
    optimizer: Any = MISSING
    logger: Any = MISSING
    budget: Budget = field(default_factory=Budget)
    train: Train = field(default_factory=Train)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    retries: Retries = field(default_factory=Retries)
    ranks: Ranks = field(default_factory=Ranks)
    evaluation: Evaluation = field(default_factory=Evaluation)
    table: Table = field(default_factory=Table)
    published: Published = field(default_factory=Published)
    plot: Plot = field(default_factory=Plot)
    diagnose: Diagnose = field(default_factory=Diagnose)
    lr_factor: float = 1.0  # multiplies optimizer.lr: one grid for rows whose rates lie far apart
    seed: int = 0  # names the noise and the data order; the data itself has task.data_seed
    suite: str = "scratch"  # runs of one suite share a folder and a table
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...; free: a GPU that no other run has claimed
    runs_per_gpu: int = 1  # of those with device=free, such as hydra/launcher=local starts
    threads: int | None = None  # CPU threads of a run; null is torch's choice
    pack_runs: int | None = None  # runs of a sweep that are trained side by side, in one process
    runs_root: str = MISSING


_REFERRED_TO = ("data", "sampler", "estimator", "rule", "arithmetic")


def resolved(config: Any) -> dict[str, Any]:
    """The composed settings as plain data, without the groups that others refer to.

    `sampler`, `estimator`, `rule` and `arithmetic` are resolved where an optimizer refers to them,
    and only there: what they refer to in turn, such as its eps, need not exist for one that does
    not. Of `data` a task has its corpus' place.
    `budget.forwards` has become `budget.steps`, too, and `lr_factor` is in `optimizer.lr`.
    """
    config = _within_budget(config)
    settings: dict[str, Any] = {}
    for key in config:
        if key in _REFERRED_TO:
            continue
        value = config[key]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        settings[str(key)] = value
    _scale_rate(settings)
    _check_keys(settings)
    return settings


def _check_keys(settings: Mapping[str, Any]) -> None:
    """Raise UserError for keys that `+` has added, or `~` has taken away."""
    known = Config.__dataclass_fields__
    if unknown := settings.keys() - known.keys():
        raise UserError(f"no such setting: {', '.join(sorted(unknown))}")
    apart = {*_REFERRED_TO, "lr_factor"}  # not in the settings of a run
    if missing := known.keys() - settings.keys() - apart:
        raise UserError(f"{', '.join(sorted(missing))}: cannot be left out of the settings")
    for part, value in settings.items():
        fields = getattr(known[part].default_factory, "__dataclass_fields__", None)
        for key in value.keys() - fields.keys() if fields else ():
            raise UserError(f"{part}.{key}: no such setting")


def _within_budget(config: Any) -> Any:
    """The settings with the steps that the budget pays for, before others refer to them."""
    budget = {key: config.budget[key] for key in ("steps", "forwards", "seconds")}
    check_budget(budget)
    config = config.copy()
    if budget["forwards"] is not None:
        train, estimator = (
            OmegaConf.to_container(config[key], resolve=True, throw_on_missing=True)
            for key in ("train", "estimator")
        )
        optimizer: Any = OmegaConf.to_container(config.optimizer, resolve=False)
        steps, periods = steps_for(budget["forwards"], train, optimizer, estimator)  # type: ignore[arg-type]
        config.budget.steps = steps
        config.train.update(periods)
    elif budget["seconds"] is None:
        config.budget.steps = DEFAULT_STEPS if budget["steps"] is None else budget["steps"]
    return config


def _scale_rate(settings: dict[str, Any]) -> None:
    factor = settings.pop("lr_factor")
    if factor == 1.0:
        return
    if "lr" not in settings["optimizer"]:
        raise UserError(f"lr_factor={factor}: this optimizer has no lr to multiply")
    settings["optimizer"]["lr"] = float(f"{factor * settings['optimizer']['lr']:.6g}")


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved settings of `zobench run OVERRIDES`, outside of any run."""
    import hydra

    register()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolved(hydra.compose("config", overrides=list(overrides)))


@cache
def register() -> None:
    """Make known what `config.yaml` refers to: the schema, the tables' rows and a resolver."""
    ConfigStore.instance().store(name="schema", node=Config)
    Plugins.instance().register(Cells)
    # Hydra makes a sweep's folder before any of its runs is looked at
    OmegaConf.register_new_resolver("plain_name", plain_name, replace=True)
