"""Runs Hydra: a command line in, composed settings out."""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.experimental.callback import Callback

from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.targets import admit

_NAMED = {  # keys whose values a run's name or folder has
    *("task", "model", "tuning", "optimizer", "evaluation", "held_out", "seed"),
    *("suite", "runs_root", "experiment", "grid", "scale"),
}


def hydra_app(arguments: list[str], config_name: str, task: Callable[[Any], Any]) -> None:
    """Let Hydra call the task with each job's settings; `--cfg` and `--help` call nothing.

    A sweeper that searches, such as Optuna's, gets what the task returns.
    """
    import hydra

    ready(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *arguments]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(task)()


def ready(arguments: list[str]) -> None:
    """Register with Hydra everything that this command line may refer to."""
    from zobench.launchers import install_hooks
    from zobench.schema import register

    register()
    _offer_sweeper()
    install_hooks()
    _check_groups(arguments)
    _make_importable(arguments)


def _offer_sweeper() -> None:
    """Make `hydra/sweeper=halving` known: Hydra takes plugins from `hydra_plugins` alone."""
    from hydra.core.plugins import Plugins

    from zobench import tune

    with suppress(ModuleNotFoundError):  # no plugin is installed
        import_module("hydra_plugins")
    package = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    sys.modules["hydra_plugins.zobench"] = package.zobench = tune  # type: ignore[attr-defined]
    Plugins.instance().register(tune.Halving)


class LogLaunch(Callback):
    """Hydra callback that starts the launch log (conf/config.yaml names it).

    runs: the number of runs in all grids of the command; null: only this grid.
    """

    def __init__(self, runs: int | None = None) -> None:
        self.runs = runs

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        del kwargs
        self._note(config, 1)

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        from zobench import live

        del kwargs
        runs = runs_of(config.hydra.sweeper, _as_typed(config))
        if (self.runs or runs) > 1:
            _leave_agent()
        self._note(config, runs)
        live.begin(config.hydra.launcher._target_, runs)

    def _note(self, config: Any, runs: int) -> None:
        from zobench.launch import launch_log

        suite = config.hydra.sweeper.get("suite", config.suite)
        if self.runs is None or launch_log.VARIABLE not in os.environ:  # else another grid began it
            plan = (config.runs_root, suite, _as_typed(config), self.runs or runs)
            launch_log.begin(*plan, config.stop_at_failure)


def _leave_agent() -> None:
    """Say that an agent of a W&B sweep, which waits for one run, gets none of several."""
    from zobench.run.loggers.wandb_agent import asked_for, leave

    if run := asked_for():
        leave()
        print(
            f"W&B: none of these runs reports to run {run} of the sweep, which takes one run per"
            " command; each has a W&B run of its own",
            file=sys.stderr,
        )


def runs_of(sweeper: Any, typed: Sequence[str]) -> int:
    """The number of runs of a multirun, at most: of a grid, of a search, or Optuna's trials."""
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    grid = jobs_in(sweeper.params or {}, typed)
    if "rungs" in sweeper:
        from zobench.tune import sizes

        with suppress(UserError):  # which the sweeper will raise
            return grid * sum(sizes(sweeper.trials, sweeper.reduction, sweeper.rungs))
    return grid


def jobs_in(params: Mapping[Any, Any], typed: Sequence[str]) -> int:
    """The number of jobs of a multirun; the last value of a key counts."""
    given = [*(f"{key}={value}" for key, value in params.items()), *typed]
    return math.prod(map(len, values_in(given).values()))


def values_in(overrides: list[str]) -> dict[str, list[str]]:
    """Key -> the values that Hydra overrides sweep over, or the one value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(overrides)
    return {override.get_key_element(): _values_of(override) for override in parsed}


def _values_of(override: Any) -> list[str]:
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = override.is_sweep_override()  # the sweeper will reject it
    return [override.input_line if interval else override.get_value_element_as_str()]


def varied(hydra: Any, overrides: list[str]) -> dict[str, str]:
    """Key -> value of what a sweep varies, in one of its jobs.

    What a sweeper has chosen by itself counts. What the run's name has anyway is left out.

    Args:
        hydra: Hydra's own settings of the job.
        overrides: of the command line that launched the sweep.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    grid = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*grid, *overrides])
    fixed = {o.get_key_element(): _values_of(o) for o in parsed if not o.is_sweep_override()}
    found = values_in([*hydra.overrides.task])
    return {k: v[0] for k, v in found.items() if k not in _NAMED and v != fixed.get(k)}


def _as_typed(config: Any) -> list[str]:
    """The overrides of the command line, unresolved."""
    from omegaconf import OmegaConf

    words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    return list(words)


def _make_importable(arguments: Sequence[str]) -> None:
    """Allow `_target_` to name Python files in the `--config-dir`, also in the run processes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    if folder := parser.parse_known_args(list(arguments))[0].config_dir:
        admit(Path(folder))


def _check_groups(arguments: Sequence[str]) -> None:
    """Raise UserError for a config group set to null, true, a number or nothing."""
    from zobench.cells import groups

    for argument in arguments:
        group, equals, option = argument.partition("=")
        no_name = re.fullmatch(r"null|true|false|[-+.\d]*", option, re.IGNORECASE)
        if equals and no_name and ((conf_dir() / group).is_dir() or group in groups()):
            raise UserError(
                f"{argument}: give the name of an option, as in optimizer=mezo, or leave it out"
            )
