"""The `zobench` command: Hydra overrides start runs; sub-commands do the rest."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zobench import __version__
from zobench.errors import UserError
from zobench.explain import explained
from zobench.terminal import ended_by_interrupt, outlive_readers

if TYPE_CHECKING:
    from zobench.launch.job import Job
    from zobench.launch.signals import Command

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
  zobench score SUITE ...    forwards to a target, profiles    zobench score lab_seeds
  zobench report SUITE       all of it as one HTML page        zobench report quickstart
  zobench dashboard SUITE    a W&B report of it, --dry-run     zobench dashboard quickstart
  zobench sync [SUITE]       upload offline W&B runs           zobench sync quickstart
  zobench tune ...           search every row's settings       zobench tune experiment=lab_seeds
  zobench status SUITE       runs done, running, failed        zobench status quickstart
  zobench list [SUITE]       suites, or runs: state, size      zobench list quickstart
  zobench rm SUITE ...       remove suites or runs             zobench rm scratch
  zobench rerun FOLDER ...   a run again, from its settings    zobench rerun runs/S/RUN
  zobench replay FOLDER      weights from a run's ledger       zobench replay runs/S/RUN --step best
  zobench verify FOLDER      check results by replaying        zobench verify results
  zobench submit FOLDER      pack a run into results/          zobench submit --help
  zobench methods            all methods and their costs       zobench methods
  zobench why KEY ...        the source of a setting           zobench why optimizer.lr
  zobench settings [PATTERN] all settings, types, defaults     zobench settings train
  zobench completion SHELL   completion for bash or zsh        eval "$(zobench completion bash)"
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
    outlive_readers()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Carry out one command line; prints one or two lines on stderr for errors of the user."""
    command, *rest = arguments or [""]
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if command in ("-V", "--version"):
        print(f"zobench {__version__}")
        return 0
    known = commands()
    try:
        if command in known:
            return known[command](rest)
        if command and command[0] not in "-+~" and "=" not in command:
            shown = [name for name in known if name[0] != "_"]
            raise UserError(
                f"{command}: no such command; there are {', '.join(shown)}, and Hydra overrides"
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


def commands() -> dict[str, Callable[[list[str]], int]]:
    """The sub-commands, by name; a module is imported when its command is carried out."""
    return {
        "run": _runs,
        "table": _module("zobench.report.table"),
        "plot": _module("zobench.report.plot"),
        "compare": _module("zobench.report.compare"),
        "score": _module("zobench.report.score"),
        "report": _module("zobench.report.page.build"),
        "dashboard": _module("zobench.report.dashboard"),
        "sync": _module("zobench.report.sync"),
        "tune": _tune,
        "status": _module("zobench.launch.status"),
        "list": _module("zobench.stored.listing"),
        "rm": _module("zobench.stored.removal"),
        "rerun": _module("zobench.rerun"),
        "replay": _module("zobench.run.replay"),
        "verify": _module("zobench.registry.verify"),
        "submit": _module("zobench.registry.submit"),
        "methods": _module("zobench.methods"),
        "why": _module("zobench.why"),
        "settings": _module("zobench.settings_reference"),
        "completion": _module("zobench.completion"),
        "_complete": _completed,
        "pretrain": _pretrain,
        "fits": _module("zobench.bench.fits"),
        "bench": _module("zobench.bench.app"),
    }


def _completed(words: list[str]) -> int:
    """Print the candidates for the last word of a command line, for the shell's completion."""
    from zobench.completion import candidates

    names = [name for name in commands() if name[0] != "_"]
    print("\n".join(candidates(words[0] if words else "", names, HELP)))
    return 0


def _module(name: str) -> Callable[[list[str]], int]:
    """The main function of a module, imported when it is called."""
    return lambda arguments: int(import_module(name).main(arguments))


def _runs(arguments: list[str]) -> int:
    """Compose and launch; under torchrun in the first rank only."""
    with ended_by_interrupt():  # imports torch
        from zobench.launch.torchrun import lead_or_follow
        from zobench.run.ranks.group import started

        import_module("zobench.launch.launch")

    return lead_or_follow(lambda: launched(arguments)) if started() else launched(arguments)


def _tune(arguments: list[str]) -> int:
    """A sweep by the sweeper that searches."""
    return _runs(import_module("zobench.tune").words(arguments))


def launched(arguments: list[str]) -> int:
    """Compose and launch, then print a summary of the runs."""
    from zobench import live
    from zobench.grids import command_lines
    from zobench.hydra_app import hydra_app
    from zobench.launch.launch import carry_out, launch
    from zobench.launch.packs import launch_in_packs
    from zobench.launch.torchrun import only
    from zobench.run.ranks.group import started
    from zobench.secret import refuse_in_arguments

    refuse_in_arguments(arguments)
    line: list[str] = []
    packs: dict[int, list[Job]] = {}  # by the size of a pack
    distributed: list[Job] = []  # under torchrun

    def launch_config(config: Any) -> float | None:
        if (job := _checked(config, line)) is None:
            return None
        if started():
            distributed.append(job)
        elif size := job.settings.pack_runs:
            packs.setdefault(size, []).append(job)
        else:
            return launch(job)
        return None

    def work(command: "Command") -> None:
        for words in command_lines(arguments):
            line[:] = words
            try:
                hydra_app(words, "config", launch_config)
            finally:
                live.end()
            command.finish()
        for size, jobs in packs.items():
            launch_in_packs(jobs, size)
        for job in only(distributed):
            launch(job)

    sweepers = {word for word in arguments if word.startswith("hydra/sweeper=")}
    return carry_out(work, searching=bool(sweepers - {"hydra/sweeper=basic"}))


def _checked(config: Any, line: Sequence[str]) -> "Job | None":
    """The job of a config; None after invalid settings, which are reported like a failed run."""
    from hydra.core.hydra_config import HydraConfig

    from zobench.launch.job import Outcome
    from zobench.launch.launch import report
    from zobench.secret import Secret

    hydra = HydraConfig.get()
    try:
        return job_of(config, hydra, line)
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


def job_of(config: Any, hydra: Any, line: Sequence[str] = ()) -> "Job":
    """The job of composed settings and Hydra's own; UserError for invalid ones.

    line: the arguments of the command that launches it, with its sweep.
    """
    from hydra._internal.utils import get_args_parser
    from omegaconf import open_dict

    from zobench.build import build, check, try_optimizer
    from zobench.hydra_app import varied
    from zobench.launch.job import GROUPS, Job
    from zobench.launchers import share
    from zobench.names import plain_name, short_settings
    from zobench.run.closure import check_offload
    from zobench.schema import resolved
    from zobench.secret import refuse_secrets
    from zobench.settings import RunSettings

    chosen = {k: v for k, v in hydra.runtime.choices.items() if v and "/" not in k}
    choices = _labelled(chosen, config.held_out)
    plain = resolved(config)
    _refuse_ignored(plain["optimizer"], choices["optimizer"], hydra.overrides.task)
    refuse_secrets(plain)
    for group in GROUPS:
        plain_name(group, choices.get(group, ""))
    settings = RunSettings.of(plain | share(plain, hydra.launcher))
    check(plain)
    check_offload(settings, try_optimizer(settings.with_pack(1).optimizer))
    build(settings.logger, "logger")  # raises UserError for bad settings
    _check_launcher(settings.pack_runs, hydra.launcher._target_)
    with open_dict(config):
        config.seed = 0
    given = get_args_parser().parse_args(list(line))
    parts = short_settings(varied(hydra, given.overrides)) if line else []
    folder = ["--config-dir", os.path.abspath(given.config_dir)] if given.config_dir else []
    own = shlex.join(["zobench", *folder, *hydra.overrides.task])
    return Job.of(settings, resolved(config), choices, parts, own)


def _labelled(choices: dict[str, str], held_out: int | None) -> dict[str, str]:
    """The choices, with an evaluation other than `standard` added to the optimizer's name.

    A run without training has only the evaluation's name, as in the papers' tables. The name of a
    task's variant has the seed that drew it.
    """
    if held_out is not None:
        choices = {**choices, "task": f"{choices['task']}-held_out={held_out}"}
    evaluation, optimizer = choices.get("evaluation", "standard"), choices.get("optimizer", "")
    if evaluation == "standard":
        return choices
    named = evaluation if optimizer == "zero_shot" else f"{optimizer}-{evaluation}"
    return {**choices, "optimizer": named}


def _refuse_ignored(optimizer: Mapping[str, Any], name: str, typed: Sequence[str]) -> None:
    """Raise UserError for a typed part of a method that the optimizer does not have."""
    for override in typed:
        group = override.lstrip("+").partition("=")[0]
        if group in ("sampler", "estimator", "rule") and group not in optimizer:
            raise UserError(f"{override}: optimizer={name} has no {group}, so it would be ignored")


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
