"""Every yaml under conf/ composes and binds; a new file is picked up without an edit here."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from zobench.build import build, check
from zobench.paths import conf_dir
from zobench.settings import RunSettings

Compose = Callable[..., dict[str, Any]]
GROUPS = (
    "model",
    "tuning",
    "task",
    "optimizer",
    "estimator",
    "sampler",
    "rule",
    "logger",
    "experiment",
)
# first and last run of every experiment compose in test_experiments and test_paper_tables
FILES = [path for group in GROUPS[:-1] for path in sorted((conf_dir() / group).glob("*.yaml"))]
OWN = (
    "zobench.",
    "hydra_plugins.zobench.",
    "torch.optim.",
    "pytorch_optimizer.",
    "bitsandbytes.",
    "transformers.",
)


def option_of(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


NEEDS = {
    "model=hf": ["model.path=x"],
    "model=point": ["task=quadratic"],
    "model=linear": ["task=a9a"],
    "task=custom": ["task.prompt=x", "task.choices=[a,b]", "task.labels=[0,1]"],
    "task=custom_regression": ["task.prompt=x", "task.choices=[a,b]", "task.labels=[0,1]"],
    "task=custom_multi_label": ["task.prompt=x", "task.labels=[a,b]", "task.right=y"],
    "task=custom_preference": ["task.prompt=x"],
    "task=custom_answer": ["task.prompt=x", "task.answers=y", "task.target=z"],
    "task=reward": ["task.prompt=x", "task.reward=gsm8k"],
    "estimator=recursive": ["optimizer=acc_zom"],  # for its rule's beta
}


@pytest.mark.parametrize("path", FILES, ids=option_of)
def test_every_option_composes_and_binds(compose: Compose, path: Path) -> None:
    """Its keys and types are those of the code that it configures."""
    option = option_of(path)
    settings = compose(option, *NEEDS.get(option, ()))
    check(settings)
    RunSettings.of(settings)


OPTIMIZERS = sorted(p.stem for p in (conf_dir() / "optimizer").iterdir())
PARTS = [
    p for group in ("sampler", "estimator", "rule") for p in sorted((conf_dir() / group).iterdir())
]


@pytest.fixture(scope="module")
def parts(compose: Compose) -> dict[str, tuple[str, Any]]:
    """The group and the settings of every part, by option."""
    groups = {option_of(path): path.parent.name for path in PARTS}
    return {
        option: (group, compose(option, *NEEDS.get(option, ()))["optimizer"][group])
        for option, group in groups.items()
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_every_part_or_says_why_not(
    compose: Compose, parts: dict[str, tuple[str, Any]], optimizer: str
) -> None:
    """Built from the config, it takes a step; parts that do not fit are refused in one sentence."""
    node = compose(f"optimizer={optimizer}")["optimizer"]
    for option, (kind, part) in parts.items():
        if kind in node:
            takes_a_step_or_refuses(node | {kind: part}, option)


def takes_a_step_or_refuses(node: Any, option: str) -> None:
    """Put together, the parts take a step on a layer; or a ValueError says what is missing."""
    import torch

    layer = torch.nn.Linear(3, 2)
    try:
        built = build(node)([(f"q_proj.{name}", p) for name, p in layer.named_parameters()])
    except ValueError as error:
        assert re.search(r"(needs .*, which neither .* gives$|draws at most)", str(error)), option
        return

    def closure(n: int = 0) -> torch.Tensor:
        del n
        return layer(torch.ones(1, 3)).square().sum()

    assert float(built.step(closure, closure)) >= 0, option


def targets(node: Any) -> list[str]:
    """Every `_target_` below a node."""
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [t for value in node.values() for t in targets(value)]
    return [t for value in node for t in targets(value)] if isinstance(node, list) else []


def test_targets_are_ours_or_torchs() -> None:
    """What ships builds zobench's parts, optimizers of two packages, transformers' configs."""
    paths = sorted(conf_dir().rglob("*.yaml"))
    found = [t for path in paths for t in targets(yaml.safe_load(path.read_text()))]
    assert found and all(target.startswith(OWN) for target in found)


def test_no_two_options_of_a_group_are_the_same() -> None:
    """Two files with the same content would be one choice under two names."""
    for group in GROUPS:
        texts = [
            [line for line in path.read_text().splitlines() if not line.startswith("#")]
            for path in (conf_dir() / group).glob("*.yaml")
        ]
        assert all(texts.count(text) == 1 for text in texts), group


def test_the_command_line_beats_every_overlay(compose: Compose) -> None:
    """A value typed by the user wins over group, tuned values and experiment."""
    settings = compose("experiment=quickstart", "optimizer=mezo", "optimizer.lr=0.125", "seed=9")
    assert (settings["optimizer"]["lr"], settings["seed"], settings["suite"]) == (
        0.125,
        9,
        "quickstart",
    )


@pytest.mark.parametrize("task", ["synthetic_reviews", "quadratic", "a9a"])
@pytest.mark.parametrize("optimizer", ["conmezo", "ldsd_sgd"])
def test_what_was_tuned_for_a_sampler_leaves_with_it(
    compose: Compose, task: str, optimizer: str
) -> None:
    """`optimizer=conmezo sampler=gaussian` is the ablation, whatever the model's tuned settings."""
    own = compose(f"task={task}", f"optimizer={optimizer}")
    ablation = compose(f"task={task}", f"optimizer={optimizer}", "sampler=gaussian")
    check(own)
    check(ablation)
    assert own["optimizer"]["sampler"] != ablation["optimizer"]["sampler"]
    assert own["optimizer"]["lr"] == ablation["optimizer"]["lr"]
