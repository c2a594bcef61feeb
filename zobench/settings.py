"""The typed settings of zobench: sections, valid ranges, and all settings of a run."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from operator import attrgetter
from typing import Any, get_type_hints

from zobench.build import check
from zobench.errors import UserError
from zobench.names import dev_metric, plain_name
from zobench.nested import nodes

Node = Mapping[str, Any]  # a class (`_target_`) and its arguments


@dataclass
class Budget:
    """The budget of a run: one of the three; 2000 steps if none is given."""

    steps: int | None = None  # of the optimizer
    forwards: int | None = None  # train.log_every and train.eval_every then count forwards, too
    seconds: float | None = None  # of training; evaluations are not counted


@dataclass
class Train:
    """How a run trains."""

    batch_size: int = 16  # examples per step
    final_lr: float = 1.0  # share of lr left at the last step, reached linearly; 1 is constant
    warmup: int | None = None  # steps that lr takes to rise from 0, linearly
    micro_batch_size: int | None = None  # evaluate a batch in parts: same loss, less memory
    precision: str | None = None  # bfloat16: arithmetic under autocast, weights as they are
    grad_clip: float | None = None  # largest gradient norm, by back-propagation only
    checkpointing: bool | None = None  # recompute activations, by back-propagation only
    select: str | None = None  # weights to test: last, dev/mcc: highest; null: lowest dev loss
    nonfinite: str | None = None  # skip: leave out steps whose loss is not finite; stop, null: end
    diverged_above: float | None = None  # end above this multiple of the first logged loss
    patience: int | None = None  # end after this many evaluations without a lower loss on dev
    log_every: int = 20  # steps per line of metrics.jsonl
    eval_every: int = 200  # steps between evaluations of dev
    keep_weights: bool = True  # leave best.safetensors in the run folder
    export: bool | None = None  # leave a folder for from_pretrained; also of a finished run


@dataclass
class Checkpoint:
    """Checkpoints, from which a run resumes if its ledger cannot be replayed."""

    steps: int | None = None  # between two of them
    minutes: float | None = 10.0  # between two of them
    beside_ledger: bool = False  # also if it can: a long replay then begins at the last one


@dataclass
class Retries:
    """How often a failed run is retried within one launch, by kind of failure."""

    killed: int = 1  # by a signal, from outside; the run resumes
    crash: int = 0  # by an exception in zobench or a library
    memory: int = 3  # each with batches in parts of half the size


@dataclass
class Ranks:
    """One run in several processes, which torchrun starts."""

    check_every: int | None = 100  # steps between comparisons of their weights' hashes


@dataclass
class Evaluation:
    """How dev and test are evaluated."""

    batch_size: int = 64  # examples per forward


@dataclass
class Table:
    """Defaults of `zobench table` for the suite."""

    rows: str = "optimizer"  # a choice, seed or a key: one row per value
    columns: str = "task"  # likewise
    metric: str = "test/accuracy"  # what a cell shows
    target: float | None = None  # also show the forwards until dev/accuracy reached it
    select: str = "mean"  # dev chooses a cell's setting: one for all seeds, or (seed) one for each
    baseline: str | None = None  # the row that the others are tested against, example by example


@dataclass
class Published:
    """The rows of `published.csv` that are shown beside the suite's own numbers.

    They match a run's choices of method, task and tuning, renamed by `names`.
    """

    paper: str | None = None  # as in the file; null shows nothing
    table: str | None = None  # of the paper, as in the file
    model: str | None = None  # as in the file
    setting: str | None = None  # exactly as in the file
    metric: str = "accuracy"  # as in the file
    names: dict[str, str] = field(default_factory=dict)  # our option: the paper's name


@dataclass
class Plot:
    """Defaults of `zobench plot` for the suite; null is the default of the kind."""

    kind: str | None = None  # curves, target, pareto or rates; null is curves
    x: str | None = None  # a metric, or for curves also a setting: one point per value
    y: str | None = None  # a metric
    lines: str | None = None  # null is optimizer
    log: str | None = None  # axes with a logarithmic scale: none, x, y or both


@dataclass
class Diagnose:
    """Compare search directions with the true gradient, at the cost of a backward pass."""

    every: int | None = None  # steps between diagnoses; null is never


@dataclass(frozen=True)
class RunSettings:
    """The resolved settings of one run.

    plain: all settings as plain data, as in config.yaml; the run's id is their hash. The other
    fields are the typed settings that zobench reads.
    """

    plain: Mapping[str, Any]
    model: Node
    tuning: Node
    task: Node
    optimizer: Node
    seed: int
    budget: Budget
    train: Train
    evaluation: Evaluation
    logger: Node = field(default_factory=dict)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    retries: Retries = field(default_factory=Retries)
    ranks: Ranks = field(default_factory=Ranks)
    diagnose: Diagnose = field(default_factory=Diagnose)
    optimized_metric: str = "dev/loss"
    suite: str = "scratch"
    runs_root: str = "runs"
    device: str = "auto"
    runs_per_gpu: int = 1
    threads: int | None = None
    pack_runs: int | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "RunSettings":
        """Parse plain settings; settings that an older run lacks get their defaults.

        Raises:
            UserError: for a setting that is missing, unknown, of the wrong type or out of range.
        """
        own = {name: plain[name] for name in cls.__dataclass_fields__ if name in plain}
        for name in _NEEDED - own.keys():
            raise UserError(f"{name}: cannot be left out of the settings")
        for name in _NODES:
            if not isinstance(own[name], Mapping) or "_target_" not in own[name]:
                raise UserError(f"{name}: expected a mapping with a _target_")
        scalars = {name: value for name, value in own.items() if not isinstance(value, Mapping)}
        check({"settings": {**scalars, "_target_": f"{__name__}.RunSettings", "_partial_": True}})
        for name in _SECTIONS.keys() & own.keys():
            own[name] = _typed(_SECTIONS[name], own[name], name)
        settings = cls(plain=plain, **own)
        _check_numbers(plain)
        _check_sizes(settings.task)
        _check_ranges(settings)
        return settings

    def halved(self, times: int) -> "RunSettings":
        """The settings with parts of batches halved so many times, down to single examples.

        The batch of a step and its loss are the same, up to the last bits.
        """
        if not times:
            return self
        part = self.train.micro_batch_size or self.train.batch_size
        train = {**self.plain["train"], "micro_batch_size": max(1, part >> times)}
        size = max(1, self.evaluation.batch_size >> times)
        evaluation = {**self.plain["evaluation"], "batch_size": size}
        return RunSettings.of({**self.plain, "train": train, "evaluation": evaluation})

    def with_pack(self, points: int) -> "RunSettings":
        """The settings with a number in place of `optimizer.pack=auto`."""
        if self.optimizer.get("pack") != AUTO:
            return self
        optimizer = {**self.optimizer, "pack": points}
        return RunSettings.of({**self.plain, "optimizer": optimizer})

    def can_be_halved(self, times: int) -> bool:
        """Whether halving once more changes anything; some steps take their batches whole."""
        if self.optimizer.get("graph") or self.model.get("offload"):
            return False
        return self.halved(times + 1) != self.halved(times)


_SECTIONS: Mapping[str, type] = {
    name: kind
    for name, kind in get_type_hints(RunSettings).items()
    if isinstance(kind, type) and is_dataclass(kind)
}
_NODES = ("model", "tuning", "task", "optimizer")
_NEEDED = {*_NODES, "seed", "budget", "train", "evaluation"}
_HASHED = ("model", "tuning", "task", "optimizer", "train", "evaluation", "seed")
AUTO = "auto"  # of optimizer.pack: a run measures which number it takes
_MOST = 2**63 - 1  # the largest int64


def _typed(section: type, given: Any, key: str) -> Any:
    """The section's dataclass; UserError for unknown keys and wrong types."""
    if not isinstance(given, Mapping):
        raise UserError(f"{key}={given}: expected a mapping")
    check({key: {**given, "_target_": f"{__name__}.{section.__name__}"}})
    return section(**given)


_Range = tuple[Callable[[Any], bool], str]  # whether a value is allowed, and words for others


def _at_least(least: int) -> _Range:
    return lambda value: value >= least, f"must be at least {least}"


def _or_null(allowed: Callable[[Any], bool], words: str) -> _Range:
    return lambda value: value is None or allowed(value), f"{words}, or null"


def _above(bound: float) -> _Range:
    return lambda value: value > bound, f"must be above {bound}"


def _one_of(names: tuple[str | None, ...], words: str) -> _Range:
    return lambda name: name in names, words


_SELECT: _Range = (
    lambda name: name in (None, "last") or name.startswith("dev/"),
    "choose last, null for the lowest loss on dev, or a metric of dev, such as dev/mcc",
)
_NOT_NEGATIVE: _Range = (lambda value: value >= 0, "must not be negative")
_RANGES: Mapping[str, _Range] = {
    "train.final_lr": _NOT_NEGATIVE,
    "train.batch_size": _at_least(1),
    "train.log_every": _at_least(1),
    "train.eval_every": _at_least(1),
    "evaluation.batch_size": _at_least(1),
    "train.micro_batch_size": _or_null(*_at_least(1)),
    "train.warmup": _or_null(*_NOT_NEGATIVE),
    "train.precision": _one_of((None, "bfloat16"), "choose bfloat16 or null"),
    "train.select": _SELECT,
    "train.nonfinite": _one_of((None, "stop", "skip"), "choose stop, skip, or null for stop"),
    "train.diverged_above": _or_null(*_above(1)),
    "train.patience": _or_null(*_at_least(1)),
    "train.grad_clip": _or_null(*_above(0)),
    "checkpoint.steps": _or_null(*_above(0)),
    "checkpoint.minutes": _or_null(*_above(0)),
    "ranks.check_every": _or_null(*_at_least(1)),
    "retries.killed": _NOT_NEGATIVE,
    "retries.crash": _NOT_NEGATIVE,
    "retries.memory": _NOT_NEGATIVE,
    "diagnose.every": _or_null(*_at_least(1)),
    "runs_per_gpu": _at_least(1),
    "threads": _or_null(*_at_least(1)),
    "pack_runs": _or_null(*_at_least(2)),
}


def _check_ranges(settings: RunSettings) -> None:
    """Raise UserError for a setting out of its range."""
    for key, (allowed, words) in _RANGES.items():
        value = attrgetter(key)(settings)
        if not allowed(value):
            raise UserError(f"{key}={value}: {words}")
    if settings.pack_runs and settings.optimizer.get("pack") == AUTO:
        raise UserError(
            f"pack_runs={settings.pack_runs}: optimizer.pack=auto is measured by a run that has a"
            " process of its own; give a number, or null"
        )
    plain_name("suite", settings.suite)
    dev_metric(settings.optimized_metric)


def _check_numbers(plain: Mapping[str, Any]) -> None:
    """Raise UserError naming the key of a number that is not finite, too large, or a bad seed."""
    for key, value in nodes(plain):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value}: must be a finite number")
        if isinstance(value, int) and abs(value) > _MOST:
            raise UserError(f"{key}={value}: too large, the limit is {_MOST}")
        if isinstance(value, int) and key.endswith("seed") and value < 0:
            raise UserError(f"{key}={value}: must not be negative")


def _check_sizes(task: Mapping[str, Any]) -> None:
    """Raise UserError for an invalid number of examples; null means all."""
    sizes = task.get("sizes")
    if not isinstance(sizes, Mapping):
        return
    for split, size in sizes.items():
        least = 1 if split == "train" else 0
        if size is not None and (type(size) is not int or size < least):
            raise UserError(f"task.sizes.{split}={size}: must be a whole number from {least} up")


def identity(plain: Mapping[str, Any]) -> str:
    """A run's id: eight hex digits, the hash of the settings that can change its numbers.

    Nulls are dropped, so a new optional setting does not rename older runs.
    """
    parts = canonical({part: plain[part] for part in _HASHED})
    parts["train"].pop("export", None)  # copies the weights, and changes none
    # older runs have the budget here; a budget in forwards is already converted to steps
    parts["train"] |= canonical({key: plain["budget"][key] for key in ("steps", "seconds")})
    parts["model"].pop("offload", None)  # where weights are changes no bit
    arithmetic = parts["optimizer"].get("arithmetic")
    if isinstance(arithmetic, dict) and arithmetic.get("rounding") == "compensated":
        arithmetic["walk"] = "scratch"  # as in older runs
    if diagnosed := canonical(plain["diagnose"]):
        parts["diagnose"] = diagnosed
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def canonical(value: Any) -> Any:
    """The value without nulls, and with integral floats as ints."""
    if isinstance(value, Mapping):
        return {k: canonical(v) for k, v in value.items() if v is not None}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # lr=1 and lr=1.0 are one setting
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value
