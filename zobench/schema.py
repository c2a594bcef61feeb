"""The root of a run's settings, and the conversion of Hydra's config to plain data."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from zobench import settings as sections
from zobench.budget import DEFAULT_STEPS, check_budget, steps_for
from zobench.cells import Cells
from zobench.errors import UserError
from zobench.names import plain_name
from zobench.paths import conf_dir


@dataclass
class Config:
    """The root of a run's settings; the components are plain yaml with a `_target_`."""

    model: Any = MISSING  # what is fine-tuned
    tuning: Any = MISSING  # which of its weights train, or what is added to it
    task: Any = MISSING  # data, prompt, loss and metric
    data: Any = None  # the folder of each corpus, which tasks refer to; null is the hub
    sampler: Any = MISSING  # the law of the search directions
    estimator: Any = MISSING  # where the loss is evaluated
    rule: Any = MISSING  # how the estimate moves the weights
    arithmetic: Any = None  # of 16-bit weights; null is exact
    optimizer: Any = MISSING  # a row of the tables: the method, with its rate
    logger: Any = MISSING  # what mirrors metrics.jsonl
    budget: sections.Budget = field(default_factory=sections.Budget)
    train: sections.Train = field(default_factory=sections.Train)
    checkpoint: sections.Checkpoint = field(default_factory=sections.Checkpoint)
    retries: sections.Retries = field(default_factory=sections.Retries)
    ranks: sections.Ranks = field(default_factory=sections.Ranks)
    evaluation: sections.Evaluation = field(default_factory=sections.Evaluation)
    table: sections.Table = field(default_factory=sections.Table)
    published: sections.Published = field(default_factory=sections.Published)
    plot: sections.Plot = field(default_factory=sections.Plot)
    diagnose: sections.Diagnose = field(default_factory=sections.Diagnose)
    optimized_metric: str = "dev/loss"  # of dev: what a run returns to a sweeper that searches
    lr_factor: float = 1.0  # multiplies optimizer.lr: one grid for rows with very different rates
    held_out: int | None = None  # draws a variant of the task that no search has seen
    seed: int = 0  # of noise and data order; the data itself has task.data_seed
    suite: str = "scratch"  # runs of one suite share a folder and a table
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...; free: a GPU that no other run has claimed
    runs_per_gpu: int = 1  # of those with device=free, such as hydra/launcher=local starts
    threads: int | None = None  # CPU threads of a run; null is torch's choice
    pack_runs: int | None = None  # runs of a sweep that are trained side by side, in one process
    stop_at_failure: bool = False  # begin no further run of a sweep after one has failed
    runs_root: str = MISSING  # folder of all runs


_REFERRED_TO = ("data", "sampler", "estimator", "rule", "arithmetic")


def resolved(config: Any) -> dict[str, Any]:
    """The composed settings as plain data, without the groups that others refer to.

    `sampler`, `estimator`, `rule`, `arithmetic` and `data` are resolved only where an optimizer or
    a task refers to them, since their own references, such as eps, may not exist otherwise.
    `budget.forwards` is converted to `budget.steps`, `lr_factor` multiplies `optimizer.lr`. What
    concerns other runs is left out: `optimizer.search` for `zobench tune`, and `stop_at_failure`.
    With `held_out` the task is a variant of itself.
    """
    config = _varied(_within_budget(config))
    settings: dict[str, Any] = {}
    for key in config:
        if key in _REFERRED_TO:
            continue
        value = config[key]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        settings[str(key)] = value
    settings["optimizer"].pop("search", None)
    settings["task"].pop("held_out", None)
    settings.pop("stop_at_failure", None)
    _scale_rate(settings)
    _check_keys(settings)
    return settings


def _check_keys(settings: Mapping[str, Any]) -> None:
    """Raise UserError for keys that `+` has added, or `~` has removed."""
    known = Config.__dataclass_fields__
    if unknown := settings.keys() - known.keys():
        raise UserError(f"no such setting: {', '.join(sorted(unknown))}")
    if missing := known.keys() - settings.keys() - {*_REFERRED_TO, "lr_factor", "stop_at_failure"}:
        raise UserError(f"{', '.join(sorted(missing))}: cannot be left out of the settings")
    for part, value in settings.items():
        fields = getattr(known[part].default_factory, "__dataclass_fields__", None)
        for key in value.keys() - fields.keys() if fields else ():
            raise UserError(f"{part}.{key}: no such setting")


def _within_budget(config: Any) -> Any:
    """The settings with a budget in forwards converted to steps, before they are resolved."""
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


def _varied(config: Any) -> Any:
    """The settings with the task's data seed, and what `task.held_out` lists, drawn by `held_out`.

    `task.held_out` has alternatives by key: another prompt, another balance of the classes.
    """
    seed = config.held_out
    if seed is None:
        return config
    if seed < 0:
        raise UserError(f"held_out={seed}: must not be negative")
    if "data_seed" not in config.task:
        raise UserError(f"held_out={seed}: this task has no data_seed, so nothing to draw")
    alternatives: Any = OmegaConf.to_container(config.task).get("held_out") or {}  # type: ignore[union-attr]
    config = config.copy()
    config.task.data_seed = random.Random(f"held_out/{seed}/data_seed").randrange(1, 2**32)
    for key, values in alternatives.items():
        config.task[key] = random.Random(f"held_out/{seed}/{key}").choice(values)
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
    """Register what `config.yaml` refers to: the schema, the rows of the tables, a resolver."""
    ConfigStore.instance().store(name="schema", node=Config)
    Plugins.instance().register(Cells)
    # Hydra creates a sweep's folder before zobench checks the names of its runs
    OmegaConf.register_new_resolver("plain_name", plain_name, replace=True)
