"""One run, from its settings to its result, in the order things happen."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch

from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.run.base_model import base_of, check_base, device_for, digest_of
from zobench.run.best_weights import BestWeights
from zobench.run.captured import CapturedLoss, captured
from zobench.run.checkpoint import Checkpoints
from zobench.run.closure import check_captured
from zobench.run.diagnosis import Diagnosis
from zobench.run.durable import renewed
from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder, read_json, write_atomically, write_json
from zobench.run.inputs import Inputs, Seen, check_inputs
from zobench.run.linear_probe import LinearProbe
from zobench.run.loggers.base import Logger
from zobench.run.loggers.none import NoLogger
from zobench.run.loop import Loop, RunCoroutine, done
from zobench.run.meter import Meter
from zobench.run.metrics_log import MetricsLog
from zobench.run.notes import note
from zobench.run.progress import BudgetClock, RunProgress
from zobench.run.ranks.agreed import Agreed, Apart, check_alike, check_ranks
from zobench.run.ranks.follower import SharedBestWeights, cut_back, own_folder
from zobench.run.ranks.group import Group
from zobench.run.ranks.shards import shared
from zobench.run.resume import resume_point_of, why_not_replayed
from zobench.run.steps import Steps
from zobench.run.stop import Stop
from zobench.run.zero_shot import ZeroShot
from zobench.settings import Budget, Checkpoint, RunSettings, Train
from zobench.tasks.problem import Problem
from zobench.tuning.saving import save
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer


class Made(NamedTuple):
    """What a run's settings describe: a model, what of it trains, and its task.

    base: the hash of the model; None for one whose weights are still to be put into it. inputs: the
    files that all this was read from.
    """

    model: Any
    tokenizer: Any
    problem: Problem
    trainable: list[tuple[str, torch.nn.Parameter]]
    base: str | None
    inputs: Inputs
    capture: bool | None  # of forwards; None is where it can be


def run(folder: RunFolder, stop: Stop | None = None, group: Group | None = None) -> dict[str, Any]:
    """Carry out the run that the folder's config.yaml describes; returns what result.json holds.

    What earlier attempts have done is not done again; a run that has its result only tells the
    logger of it, if that is not known to have happened. Everything that bad input can spoil happens
    before the first file of results is opened. Raises Stopped when `stop` is asked. group: the
    ranks that carry it out together, of which the first keeps the folder.
    """
    settings = folder.fitting()
    if folder.result.is_file():
        return _told(folder, settings)
    device = device_for(settings, None if group is None else group.place)
    meter = Meter(device)
    with meter.phase("load"):
        made = made_of(settings, device)
        optimizer = build_optimizer(settings.optimizer, made.trainable, made.model)
    check_gradient(settings.train, made.problem, optimizer)
    if group is not None:
        check_ranks(settings.model, optimizer)
    check_captured(optimizer, settings.train.micro_batch_size, settings.train.nonfinite)
    ranks = 1 if group is None else group.size
    some = partial(made.problem.batch, [0])
    loss = captured(made.problem.loss, made.model, some, made.capture, optimizer, ranks)
    if isinstance(optimizer, LinearProbe):  # also what refuses, hence before results are opened
        with meter.phase("fit"):
            optimizer.fit(made.model, made.problem, settings.evaluation.batch_size)
    if settings.train.checkpointing:
        _checkpoint_activations(made.model)
    logger: Logger = (
        build(settings.logger, "logger") if group is None or group.first else NoLogger()
    )
    with own_folder(folder, group) as own:
        parts = (made, optimizer, meter, logger, stop or Stop(), group, loss)
        return done(recorded(own, settings, *parts))


def made_of(settings: RunSettings, device: torch.device) -> Made:
    """Load model and data, the model to the device."""
    task = build(settings.task, "task")
    seen = Seen(settings, task)
    loaded = base_of(settings, device)
    model = loaded.model
    base = digest_of(model)
    problem = task.prepare(loaded, device)
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return Made(model, loaded.tokenizer, problem, trainable, base, seen.inputs(), loaded.capture)


def recorded(
    folder: RunFolder,
    settings: RunSettings,
    made: Made,
    optimizer: torch.optim.Optimizer,
    meter: Meter,
    logger: Logger,
    stop: Stop | None = None,
    group: Group | None = None,
    loss: CapturedLoss | None = None,
) -> RunCoroutine:
    """Train, with everything that the folder and the logger are to hold; the result, in the end.

    stop: None for one of several runs in a process, which end where they are. group: as in `run`.
    loss: the problem's, where its forwards are captured.
    """
    budget = Budget(steps=0) if isinstance(optimizer, ZeroShot) else settings.budget
    lines, first = stop is None, group is None or group.first
    asked = stop or Stop()
    agreed = None
    if group is not None:
        every, trained = settings.ranks.check_every, made.trainable
        agreed = Agreed(group, asked, meter, trained, every, settings.seed)
    noted = made.problem
    if agreed is not None:
        made = made._replace(problem=shared(made.problem, agreed, made.model, optimizer))
    clock = BudgetClock(budget, agreed or meter)
    checkpoints = _checkpoints(folder, settings.checkpoint, optimizer)
    resume = resume_point_of(folder, settings.seed, optimizer, checkpoints)
    device, meta = meter.device, read_json(folder.meta)
    base = made.base or digest_of(made.model)
    if resume.end:
        check_base(meta, base)
        check_inputs(folder, settings, made.inputs)
    else:
        meta.pop("wandb", None)  # begun anew, it is another run there, too
    if group is not None:
        check_alike(group, settings, (base, made.inputs), made.problem.sizes, resume)
        meta["ranks"] = group.size
        checkpoints = checkpoints if first else None
    meta["data"] = dict(made.problem.sizes)
    meta["parameters"] = sum(p.numel() for _, p in made.trainable)
    meta["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    meta |= {"base": base, "inputs": made.inputs}
    note(noted, meta, aloud=first)
    write_json(folder.meta, meta)
    metrics_log = MetricsLog(folder.metrics, logger)
    write_atomically(folder.mirroring, "")
    logger.begin(folder, settings.plain, meta, metrics_log.rows)
    try:
        with ExitStack() as stack:
            stack.enter_context(metrics_log)
            progress = stack.enter_context(RunProgress(meta["name"], clock, lines=lines))
            ledger = None
            if isinstance(optimizer, ZOOptimizer):
                ledger = Ledger(folder.ledger, settings.seed, resume.ledger, renewed)
                stack.enter_context(ledger)
            whole = loss or made.problem.loss
            about = (made.model, made.problem, optimizer, clock, resume, whole, ledger)
            loop = Loop(
                folder,
                settings.train,
                Steps(settings.train, settings.seed, *about),
                eval_batch=settings.evaluation.batch_size,
                model=made.model,
                best=_best(folder, made.model, settings.train.select, group),
                metrics_log=metrics_log,
                meter=meter,
                progress=progress,
                checkpoints=checkpoints,
                diagnosis=_diagnosis(settings.diagnose.every, optimizer),
                stop=agreed or asked,
            )
            result = yield from loop.work()
        if settings.train.export and first:
            _export(folder, made)
        write_json(folder.result, result)
    except BaseException as error:
        logger.abort()
        if isinstance(error, Apart):
            cut_back(folder, error.agreed)
        raise
    _end(folder, settings.train, logger, result)
    return result


def _told(folder: RunFolder, settings: RunSettings) -> dict[str, Any]:
    """The result of a run that has it, after the logger has heard of it."""
    result = folder.ended()
    if folder.mirroring.exists():
        logger: Logger = build(settings.logger, "logger")
        rows = MetricsLog(folder.metrics, logger).rows
        logger.begin(folder, settings.plain, read_json(folder.meta), rows)
        _end(folder, settings.train, logger, result)
    return result


def _end(folder: RunFolder, train: Train, logger: Logger, result: Mapping[str, Any]) -> None:
    """The result is written: what only a later attempt would need goes, and the logger hears."""
    if not train.keep_weights:
        fence_of(folder.path).remove(folder.weights)
    Checkpoints(folder.path, None, None).clear()
    logger.end(result)
    fence_of(folder.path).remove(folder.mirroring)


def _best(folder: RunFolder, model: Any, select: str | None, group: Group | None) -> BestWeights:
    """Keeps the best weights on dev, or the last; of several ranks the first does."""
    last = select == "last"
    if group is not None:
        return SharedBestWeights(folder, model, group, last=last)
    return BestWeights(folder.weights, model, last=last)


def _export(folder: RunFolder, made: Made) -> None:
    """The model as a folder for from_pretrained, which is whole or not there."""
    fence = fence_of(folder.path)
    place = fence.place(folder.model)
    save(made.model, made.tokenizer, place)
    fence.remove(folder.model)
    fence.put(place, folder.model)


def _checkpoints(
    folder: RunFolder, wanted: Checkpoint, optimizer: torch.optim.Optimizer
) -> Checkpoints | None:
    """None where the ledger does without them, unless they are wanted beside it."""
    if isinstance(optimizer, ZeroShot):
        return None
    if why_not_replayed(optimizer) is None and not wanted.beside_ledger:
        return None
    return Checkpoints(folder.path, wanted.steps, wanted.minutes)


def check_gradient(train: Train, problem: Problem, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError where the optimizer needs what the task has not, or the other way round."""
    first_order = not isinstance(optimizer, ZOOptimizer | ZeroShot)
    if not first_order and (train.checkpointing or train.grad_clip):
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
