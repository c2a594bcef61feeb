"""`zobench bench`: the time of a step of each method over that of its forward passes.

A Hydra app of its own (conf/bench.yaml). Its rows are composed as a run composes them: the model's
and the tuning's option, an optimizer, then the row's own overrides.
"""

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from zobench.bench.hardware import hardware
from zobench.bench.measure import measure
from zobench.bench.noise import throughput
from zobench.bench.rounds import say
from zobench.bench.settings import Settings, check_settings
from zobench.bench.subject import subject_of
from zobench.bench.table import shown
from zobench.build import build_optimizer, check
from zobench.errors import UserError
from zobench.hydra_app import hydra_app
from zobench.run.device import device_named
from zobench.run.folder import write_json
from zobench.run.zero_shot import ZeroShot
from zobench.schema import resolved

Nodes = dict[str, Any]  # the optimizer's settings, by row


class Bench(NamedTuple):
    """One bench: its command line, the model's option, its own settings, and its rows."""

    command: str
    model: str
    settings: dict[str, Any]
    nodes: Nodes


def main(arguments: Sequence[str]) -> int:
    """Compose and check everything, measure, print the table and write its numbers."""
    ConfigStore.instance().store(name="bench_schema", node=Settings)
    jobs: list[Bench] = []
    refused: list[Exception] = []

    def compose(config: Any) -> None:
        try:
            jobs.append(_composed(config))
        except Exception as error:  # Hydra would print a line of its own before it
            refused.append(error)

    hydra_app(list(arguments), "bench", compose)
    if refused:
        raise refused[0]
    for job in jobs:  # none for --cfg and --help
        device = device_named(job.settings["device"])
        out = _place(job, device)
        record = {"command": job.command, **_measured(job, device)}
        write_json(out, record)
        print(shown(record), end="")
        print(f"all times: {out}")
    return 0


def _composed(config: Any) -> Bench:
    """Check the settings and compose the rows; all of it inside Hydra, which knows the groups."""
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if unknown := settings.keys() - Settings.__dataclass_fields__.keys():
        raise UserError(f"no such setting: {', '.join(sorted(unknown))}")
    check_settings(settings)
    check({name: settings[name] for name in ("model", "tuning")})
    if settings["model"].get("offload"):
        raise UserError("model.offload: the bench keeps all weights on the device; set it to null")
    given = HydraConfig.get()
    command = " ".join(["zobench", "bench", *map(_quoted, given.overrides.task)])
    choices = given.runtime.choices
    common = [f"{group}={choices[group]}" for group in ("model", "tuning")]
    common += ["++model.path=none", f"seed={settings['seed']}"]  # the model is the bench's
    nodes = {row: _optimizer(common, row) for row in settings["optimizers"]}
    return Bench(command, str(choices["model"]), settings, nodes)


def _optimizer(common: list[str], row: str) -> Any:
    """The settings of a row's optimizer, checked; UserError for a row that changes more than it."""
    name, *own = row.split()
    whole = _run([*common, f"optimizer={name}", *own])
    plain = _run([*common, f"optimizer={name}"]) if own else whole
    other = [key for key in whole if key != "optimizer" and whole[key] != plain.get(key)]
    if other:
        raise UserError(
            f"optimizers: '{row}' changes {', '.join(other)}; a row may only choose its optimizer,"
            " sampler, estimator and rule"
        )
    check({"optimizer": whole["optimizer"]})
    single = torch.nn.ParameterDict({"weight": torch.zeros(1)})  # parts may not fit together
    if isinstance(build_optimizer(whole["optimizer"], single.items(), single), ZeroShot):
        raise UserError(f"optimizers: {name} takes no steps that could be timed")
    return whole["optimizer"]


def _run(overrides: list[str]) -> dict[str, Any]:
    return resolved(hydra.compose("config", overrides))


def _measured(job: Bench, device: torch.device) -> dict[str, Any]:
    settings = job.settings
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    subject = subject_of(settings, device)
    found = {"date": date.today().isoformat(), **hardware(device)}
    found |= {key: settings[key] for key in ("dtype", "batch_size", "tokens", "logits", "seed")}
    found |= {"model": subject.sizes, **measure(subject, job.nodes, settings)}
    if settings["noise"]:
        say("noise")
        found["noise_parameters"] = settings["noise"]
        found["noise"] = throughput(settings["noise"], settings["rounds"], device)
    return found


def _place(job: Bench, device: torch.device) -> Path:
    """The file of the JSON, in an existing folder; UserError where it cannot be written."""
    settings = job.settings
    batch = f"{settings['batch_size']}x{settings['tokens']}"
    name = f"{job.model}-{settings['dtype']}-{batch}-{settings['logits']}-{device.type}.json"
    out = Path(settings["out"] or Path(settings["runs_root"]) / "bench" / name).expanduser()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}: {error.filename}") from error
    if out.is_dir():
        raise UserError(f"out={out}: is a folder; name a file")
    return out


def _quoted(argument: str) -> str:
    """The command line as typed: rows with overrides are in single quotes."""
    plain = "'" in argument and not set(argument) & set('"$`\\!')
    return f'"{argument}"' if plain else shlex.quote(argument)
