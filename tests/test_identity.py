"""A run is its settings: what renames it and what does not."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from zobench.settings import identity

Settings = dict[str, Any]
Path = tuple[str | int, ...]
# where and how a run is carried out and shown; everything else is what is carried out
WHERE = ("suite", "device", "runs_per_gpu", "threads", "runs_root", "pack_runs")
PLACE = (
    "optimized_metric",
    "held_out",
    "checkpoint",
    "retries",
    "ranks",
    "plot",
    "published",
    "logger",
    "table",
    *WHERE,
)


@pytest.fixture(scope="module")
def base(compose: Callable[..., Settings]) -> Settings:
    """The settings of plain `zobench`."""
    return compose()


def leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is neither a mapping nor a list, with the keys that lead to it."""
    if isinstance(node, Mapping | list):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in items:
            yield from leaves(value, (*path, key))
    else:
        yield path, node


def changed(settings: Settings, path: Path, value: Any) -> Settings:
    """A copy with one leaf replaced."""
    settings = copy.deepcopy(settings)
    node: Any = settings
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return settings


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return "another" if value is None or isinstance(value, str) else value + 1


def test_every_setting_that_describes_the_run_renames_it(base: Settings) -> None:
    """Each leaf of model, tuning, task, optimizer, budget, train, evaluation and the seed."""
    names = {identity(base)}
    count = 1
    described = leaves({k: v for k, v in base.items() if k not in PLACE})
    for path, value in described:
        if path in (("budget", "forwards"), ("train", "export")):
            continue  # what forwards pay for is in budget.steps; an export changes no number
        names.add(identity(changed(base, path, other(value))))
        count += 1
        assert len(names) == count, f"{path} is not part of the identity"
    assert count > 30


def test_place_and_presentation_do_not_rename_a_run(base: Settings) -> None:
    """Suite, device, threads, logger, checkpoints, runs_root, export and the suite's table."""
    placed = [*leaves({k: v for k, v in base.items() if k in PLACE}), (("train", "export"), None)]
    for path, value in placed:
        assert identity(changed(base, path, other(value))) == identity(base), path
    assert set(PLACE) <= base.keys()


def test_another_command_line_is_another_run(compose: Callable[..., Settings]) -> None:
    """The settings as Hydra composes them, logger and suite aside."""
    lines: tuple[tuple[str, ...], ...] = (
        (),
        ("seed=1",),
        ("optimizer.lr=2e-4",),
        ("optimizer=mezo_adam",),
        ("sampler=rademacher",),
        ("estimator=one_sided",),
        ("budget.steps=7",),
        ("task.data_seed=1",),
        ("task.sizes.train=32",),
        ("model=hf", "model.path=somewhere"),
    )
    assert len({identity(compose(*line)) for line in lines}) == len(lines)
    assert identity(compose("logger=none", "suite=x", "threads=1")) == identity(compose())


def test_a_new_optional_setting_does_not_rename_older_runs(base: Settings) -> None:
    """Nulls are dropped at every depth; 0, false and empty texts are values."""
    older = changed(base, ("task", "sizes", "new"), None)
    older["optimizer"]["rule"]["new"] = None
    assert identity(older) == identity(base)
    for value in (0, False, ""):
        assert identity(changed(base, ("task", "new"), value)) != identity(base)


def test_the_order_of_keys_does_not_matter_and_that_of_lists_does(base: Settings) -> None:
    """A yaml may be tidied; two choices may not change places."""
    assert identity(dict(reversed(base.items()))) == identity(base)
    backwards = changed(base, ("task",), dict(reversed(base["task"].items())))
    assert identity(backwards) == identity(base)
    swapped = changed(base, ("task", "choices"), base["task"]["choices"][::-1])
    assert identity(swapped) != identity(base)


def test_an_identity_is_eight_hexadecimal_digits_and_leaves_the_settings_alone(
    base: Settings,
) -> None:
    """It is part of a folder's name."""
    before = copy.deepcopy(base)
    assert re.fullmatch("[0-9a-f]{8}", identity(base))
    assert base == before


def test_an_identity_is_the_same_in_every_version() -> None:
    """Golden value: changing the hash would make every finished run run again."""
    settings = {
        "model": {"path": "x"},
        "tuning": {"rank": None},
        "task": {"choices": [" a", " b"], "sizes": {"train": 2}},
        "optimizer": {"lr": 1e-6, "name": "é"},
        "budget": {"steps": 3, "forwards": None, "seconds": None},
        "train": {"batch_size": None},
        "evaluation": {"batch_size": 64},
        "seed": 0,
        "diagnose": {"every": None},
    }
    assert identity(settings) == "503467b9"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ((), "dd16f903"),
        (("arithmetic=exact",), "275abbe5"),
        (("arithmetic=exact", "model.dtype=bfloat16", "optimizer=loren"), "a7a60c10"),
        (("arithmetic=inplace",), "1e857087"),
        (("arithmetic=stochastic",), "93c3ac28"),
    ],
)
def test_arithmetics_keep_their_names(
    compose: Callable[..., Settings], line: tuple[str, ...], name: str
) -> None:
    """Golden values: `exact` is named as when it took the scratch walk."""
    assert identity(compose(*line)) == name
