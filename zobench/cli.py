"""The `zobench` command: Hydra overrides start runs; sub-commands do the rest."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zobench.errors import UserError
from zobench.explain import explained

if TYPE_CHECKING:
    from zobench.launch.job import Job

_SIZES = ("hidden_size", "ffn_size", "layers", "heads")  # of conf/pretrain.yaml, for its groups

HELP = """\
zobench: zeroth-order fine-tuning of language models

Start runs with Hydra overrides (`zobench run ...` is the same):
  zobench                                        the tiny model, synthetic reviews, MeZO: seconds
  zobench optimizer=mezo_adam seed=1             another optimizer and seed
  zobench -m optimizer=mezo,adamw seed=0,1,2     a sweep, one process per run
  zobench -m pack_runs=4 tuning=lora seed=0,1,2,3    runs side by side, in one process
  zobench experiment=quickstart                  the whole grid of a table
  zobench run --help                             Hydra's help: all groups and settings

Sub-commands:
  zobench table SUITE        runs/SUITE as a table             zobench table quickstart
  zobench plot SUITE         its curves, bars, fronts; as PNG  zobench plot quickstart --log y
  zobench compare SUITE      its rows against MeZO, intervals  zobench compare all_tiny
  zobench report SUITE       all of it as one HTML page        zobench report quickstart
  zobench dashboard SUITE    a W&B report of it, --dry-run     zobench dashboard quickstart
  zobench sync [SUITE]       upload offline W&B runs           zobench sync quickstart
  zobench status SUITE       runs done, running, failed        zobench status quickstart
  zobench replay FOLDER      weights from a run's ledger       zobench replay runs/S/RUN --step best
  zobench verify FOLDER      check results by replaying        zobench verify results
  zobench submit FOLDER      pack a run into results/          zobench submit --help
  zobench methods            all methods and their costs       zobench methods
  zobench why KEY ...        the source of a setting           zobench why optimizer.lr
  zobench pretrain ...       train a small model from text     zobench pretrain recipe=tiny out=X
  zobench fits ...           a run's memory, unloaded          zobench fits model=llama3_8b --gpu 24
  zobench bench ...          steps against their forwards      zobench bench optimizers=[mezo,loren]

Runs are stored in runs/, or in $ZOBENCH_RUNS. ZOBENCH_TRACE=1 shows tracebacks.
"""


def main() -> None:
    """Entry point; exit status 0, 1 if a run or the input failed, 75 if a signal stopped runs."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # iterations that torch's idle threads (GNU OpenMP) spin on a core; the default lasts about
        # as long as a pass over a module. Must be set before torch is loaded.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Carry out one command line; prints one or two lines on stderr for errors of the user."""
    command, *rest = arguments or [""]
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _runs,
        "table": _module("zobench.report.table"),
        "plot": _module("zobench.report.plot"),
        "compare": _module("zobench.report.compare"),
        "report": _module("zobench.report.page.build"),
        "dashboard": _module("zobench.report.dashboard"),
        "sync": _module("zobench.report.sync"),
        "status": _module("zobench.launch.status"),
        "replay": _module("zobench.run.replay"),
        "verify": _module("zobench.registry.verify"),
        "submit": _module("zobench.registry.submit"),
        "methods": _module("zobench.methods"),
        "why": _module("zobench.why"),
        "pretrain": _pretrain,
        "fits": _module("zobench.bench.fits"),
        "bench": _module("zobench.bench.app"),
    }
    try:
        if command in commands:
            return commands[command](rest)
        if command and command[0] not in "-+~" and "=" not in command:
            raise UserError(
                f"{command}: no such command; there are {', '.join(commands)}, and Hydra overrides"
                " such as optimizer=mezo (zobench --help)"
            )
        return _runs(list(arguments))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("ZOBENCH_TRACE"):
            raise
        message = explained(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1


def _module(name: str) -> Callable[[list[str]], int]:
    """The main function of a module, imported when it is called."""
    return lambda arguments: int(import_module(name).main(arguments))


def _runs(arguments: list[str]) -> int:
    """Compose and launch; under torchrun in the first rank only."""
    from zobench.launch.torchrun import lead_or_follow
    from zobench.run.ranks.group import started

    return lead_or_follow(lambda: _launched(arguments)) if started() else _launched(arguments)


def _launched(arguments: list[str]) -> int:
    """Compose and launch, then print a summary of the runs."""
    from zobench.grids import command_lines
    from zobench.hydra_app import hydra_app
    from zobench.launch import launch_log
    from zobench.launch.launch import launch, summary
    from zobench.launch.packs import launch_in_packs
    from zobench.launch.signals import Command
    from zobench.launch.torchrun import only
    from zobench.run.ranks.group import started
    from zobench.run.stop import REQUEUE, Stopped
    from zobench.secret import refuse_in_arguments

    refuse_in_arguments(arguments)
    packs: dict[int, list[Job]] = {}  # by the size of a pack
    distributed: list[Job] = []  # under torchrun

    def launch_config(config: Any) -> None:
        if (job := _checked(config)) is None:
            return
        if started():
            distributed.append(job)
        elif size := job.settings.pack_runs:
            packs.setdefault(size, []).append(job)
        else:
            launch(job)

    try:
        with Command() as command:
            for line in command_lines(arguments):
                hydra_app(line, "config", launch_config)
                command.finish()
            for size, jobs in packs.items():
                launch_in_packs(jobs, size)
            for job in only(distributed):
                launch(job)
    except Stopped as stop_signal:
        print(f"stopped by {stop_signal}; the next launch resumes the runs", file=sys.stderr)
        return REQUEUE
    finally:
        notes = Path(os.environ.pop(launch_log.VARIABLE, "none"))
        rows = launch_log.rows_of(notes)
        launch_log.end(notes)
    return summary(rows)


def _checked(config: Any) -> "Job | None":
    """The job of a config; None after invalid settings, which are reported like a failed run."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from zobench.build import build, check, try_optimizer
    from zobench.launch.job import GROUPS, Job, Outcome
    from zobench.launch.launch import report
    from zobench.launchers import share
    from zobench.names import plain_name
    from zobench.schema import resolved
    from zobench.secret import Secret, refuse_secrets
    from zobench.settings import RunSettings

    hydra = HydraConfig.get()
    choices = _labelled({k: v for k, v in hydra.runtime.choices.items() if v and "/" not in k})
    try:
        plain = resolved(config)
        refuse_secrets(plain)
        for group in GROUPS:
            plain_name(group, choices.get(group, ""))
        settings = RunSettings.of(plain | share(plain, hydra.launcher))
        check(plain)
        try_optimizer(settings.optimizer)
        build(settings.logger, "logger")  # raises UserError for bad settings
        _check_launcher(settings.pack_runs, hydra.launcher._target_)
        with open_dict(config):
            config.seed = 0
        base = resolved(config)
    except Exception as error:
        message = explained(error)
        if isinstance(error, Secret):  # Hydra has written a sweep's settings to this file
            (Path(config.runs_root) / config.suite / "multirun.yaml").unlink(missing_ok=True)
        if message is None or os.environ.get("ZOBENCH_TRACE"):
            raise
        name = "this command"
        with contextlib.suppress(Exception):  # its interpolations may be the error
            name = hydra.job.override_dirname or name
        report(Outcome("failed", name, message))
        return None
    return Job.of(settings, base, choices)


def _labelled(choices: dict[str, str]) -> dict[str, str]:
    """The choices, with an evaluation other than `standard` added to the optimizer's name.

    A run without training has only the evaluation's name, as in the papers' tables.
    """
    evaluation, optimizer = choices.get("evaluation", "standard"), choices.get("optimizer", "")
    if evaluation == "standard":
        return choices
    named = evaluation if optimizer == "zero_shot" else f"{optimizer}-{evaluation}"
    return {**choices, "optimizer": named}


def _check_launcher(pack_runs: int | None, launcher: str) -> None:
    """Raise UserError for packs with a launcher that splits the jobs of a sweep."""
    from zobench.launch.torchrun import check_launch

    check_launch(pack_runs, launcher)
    if pack_runs and not launcher.endswith(".BasicLauncher"):
        raise UserError(f"pack_runs={pack_runs}: packs work with Hydra's basic launcher only")


def _pretrain(arguments: list[str]) -> int:
    from omegaconf import OmegaConf

    from zobench.build import build, check
    from zobench.hydra_app import hydra_app

    composed: list[Any] = []
    hydra_app(arguments, "pretrain", composed.append)
    for config in composed:  # none for --cfg and --help
        settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        node = {k: v for k, v in settings.items() if k not in _SIZES}
        check({"pretrain": node})
        made = build(node)
        size = f"{made.parameters:,} parameters, {made.vocabulary} tokens"
        print(f"{made.out}: {size}, held-out loss {made.heldout_loss:.3f}, {made.seconds:.0f} s")
        print(f"use it with model=hf model.path={made.out}")
    return 0
