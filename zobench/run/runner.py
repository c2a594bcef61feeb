"""One run, from its settings to its result, in the order things happen."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.run.device import device_named
from zobench.run.diagnosis import Diagnosis
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.linear_probe import LinearProbe
from zobench.run.loggers.base import Logger
from zobench.run.loop import Loop
from zobench.run.meter import Meter
from zobench.run.pace import Pace
from zobench.run.progress import RunProgress
from zobench.run.zero_shot import ZeroShot
from zobench.tasks.problem import Problem
from zobench.tuning.saving import save
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer


def run(folder: RunFolder) -> dict[str, Any]:
    """Carry out the run that the folder's config.yaml describes; returns what result.json holds.

    Everything that bad input can spoil happens before the first file of results is opened.
    """
    settings, meta = folder.settings(), read_json(folder.meta)
    device = device_named(settings["device"])
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])  # for dropout; ZO noise and data order have their own keys
    meter = Meter(device)
    with meter.phase("load"):
        loaded = build(settings["model"])
        model = build(settings["tuning"])(loaded.model)
        if not hasattr(loaded.model, "hf_device_map"):  # else it is where its map put it
            model.to(device)
        problem = build(settings["task"]).prepare(loaded._replace(model=model), device)
        trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        optimizer = build_optimizer(settings["optimizer"], trainable, model)
    _check_gradient(settings["train"], problem, optimizer)
    if isinstance(optimizer, LinearProbe):  # also what refuses, hence before results are opened
        with meter.phase("fit"):
            optimizer.fit(model, problem, settings["evaluation"]["batch_size"])
    if settings["train"]["checkpointing"]:
        _checkpoint_activations(model)
    logger: Logger = build(settings["logger"])
    budget = {"steps": 0} if isinstance(optimizer, ZeroShot) else settings["budget"]
    pace = Pace(budget, meter)
    diagnosis = _diagnosis(settings["diagnose"]["every"], optimizer)
    meta["data"] = dict(problem.sizes)
    meta["parameters"] = sum(p.numel() for _, p in trainable)
    meta["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    write_json(folder.meta, meta)
    logger.begin(folder, settings, meta)
    try:
        with ExitStack() as stack:
            metrics = stack.enter_context(folder.metrics.open("w"))
            progress = stack.enter_context(RunProgress(meta["name"], pace))
            loop = Loop(
                folder, settings, model, problem, optimizer, meter, pace, logger, progress, metrics
            )
            loop.diagnosis = diagnosis
            if isinstance(optimizer, ZOOptimizer):
                loop.ledger = stack.enter_context(Ledger(folder.ledger, settings["seed"]))
            result = loop.carry_out()
        if settings["train"]["export"]:
            save(model, loaded.tokenizer, folder.model)
    except BaseException:
        logger.abort()
        raise
    logger.end(result)
    write_json(folder.result, result)
    return result


def _check_gradient(
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
