"""One run, from its settings to its result, in the order things happen."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.models.loaded import LoadedModel
from zobench.run.device import device_named
from zobench.run.diagnosis import Diagnosis
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.graphed import check_captured
from zobench.run.linear_probe import LinearProbe
from zobench.run.loggers.base import Logger
from zobench.run.loop import Loop
from zobench.run.meter import Meter
from zobench.run.pace import Pace
from zobench.run.progress import RunProgress
from zobench.run.work import Work, done
from zobench.run.zero_shot import ZeroShot
from zobench.tasks.problem import Problem
from zobench.tuning.saving import save
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer


class Made(NamedTuple):
    """What a run's settings describe: a model, what of it trains, and its task."""

    model: Any
    tokenizer: Any
    problem: Problem
    trainable: list[tuple[str, torch.nn.Parameter]]


def run(folder: RunFolder) -> dict[str, Any]:
    """Carry out the run that the folder's config.yaml describes; returns what result.json holds.

    Everything that bad input can spoil happens before the first file of results is opened.
    """
    settings = folder.settings()
    device = device_for(settings)
    meter = Meter(device)
    with meter.phase("load"):
        made = made_of(settings, device)
        optimizer = build_optimizer(settings["optimizer"], made.trainable, made.model)
    check_gradient(settings["train"], made.problem, optimizer)
    check_captured(optimizer, settings["train"]["micro_batch_size"])
    if isinstance(optimizer, LinearProbe):  # also what refuses, hence before results are opened
        with meter.phase("fit"):
            optimizer.fit(made.model, made.problem, settings["evaluation"]["batch_size"])
    if settings["train"]["checkpointing"]:
        _checkpoint_activations(made.model)
    return done(recorded(folder, settings, made, optimizer, meter, build(settings["logger"])))


def device_for(settings: Mapping[str, Any]) -> torch.device:
    """The run's device, after its threads are set."""
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    return device_named(settings["device"])


def made_of(settings: Mapping[str, Any], device: torch.device) -> Made:
    """Load model and data, the model to the device."""
    loaded, model = tuned_of(settings)
    if not hasattr(loaded.model, "hf_device_map"):  # else it is where its map put it
        model.to(device)
    problem = build(settings["task"]).prepare(loaded._replace(model=model), device)
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return Made(model, loaded.tokenizer, problem, trainable)


def tuned_of(settings: Mapping[str, Any]) -> tuple[LoadedModel, Any]:
    """The model as it is loaded, and as it is tuned; the global random state is the seed's."""
    torch.manual_seed(settings["seed"])  # for dropout; ZO noise and data order have their own keys
    loaded: LoadedModel = build(settings["model"])
    return loaded, build(settings["tuning"])(loaded.model)


def recorded(
    folder: RunFolder,
    settings: Mapping[str, Any],
    made: Made,
    optimizer: torch.optim.Optimizer,
    meter: Meter,
    logger: Logger,
    *,
    alone: bool = True,
) -> Work:
    """Train, with everything that the folder and the logger are to hold; the result, in the end."""
    budget = {"steps": 0} if isinstance(optimizer, ZeroShot) else settings["budget"]
    pace = Pace(budget, meter)
    diagnosis = _diagnosis(settings["diagnose"]["every"], optimizer)
    device, meta = meter.device, read_json(folder.meta)
    meta["data"] = dict(made.problem.sizes)
    meta["parameters"] = sum(p.numel() for _, p in made.trainable)
    meta["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    write_json(folder.meta, meta)
    logger.begin(folder, settings, meta)
    try:
        with ExitStack() as stack:
            metrics = stack.enter_context(folder.metrics.open("w"))
            progress = stack.enter_context(RunProgress(meta["name"], pace, lines=not alone))
            parts = (made.model, made.problem, optimizer, meter, pace, logger, progress, metrics)
            loop = Loop(folder, settings, *parts)
            loop.diagnosis = diagnosis
            if isinstance(optimizer, ZOOptimizer):
                loop.ledger = stack.enter_context(Ledger(folder.ledger, settings["seed"]))
            result = yield from loop.work()
        if settings["train"]["export"]:
            save(made.model, made.tokenizer, folder.model)
    except BaseException:
        logger.abort()
        raise
    logger.end(result)
    write_json(folder.result, result)
    return result


def check_gradient(
    train: Mapping[str, Any], problem: Problem, optimizer: torch.optim.Optimizer
) -> None:
    """Raise UserError where the optimizer needs what the task has not, or the other way round."""
    first_order = not isinstance(optimizer, ZOOptimizer | ZeroShot)
    if not first_order and (train["checkpointing"] or train["grad_clip"]):
        raise UserError(
            "train.checkpointing, train.grad_clip: this optimizer does not back-propagate"
        )
    pack = optimizer.engine.pack if isinstance(optimizer, ZOOptimizer) else 1
    if not problem.differentiable and pack > 1:
        raise UserError(
            f"optimizer.pack={pack}: this task's loss counts right answers, which is not one"
            " computation on tensors; set optimizer.pack=null"
        )
    if not problem.differentiable and first_order:
        raise UserError(
            "task.loss: this loss has no gradient, which the optimizer needs; choose a"
            " zeroth-order one"
        )


def _checkpoint_activations(model: Any) -> None:
    """Recompute activations in the backward pass; transformers 5.2x renamed the method."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)()


def _diagnosis(every: int | None, optimizer: torch.optim.Optimizer) -> Diagnosis | None:
    if not every:
        return None
    if not isinstance(optimizer, ZOOptimizer):
        raise UserError(f"diagnose.every={every}: only zeroth-order optimizers have directions")
    return Diagnosis(optimizer, every)
