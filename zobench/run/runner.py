"""One run, from its settings to its result."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, cast

import torch

from zobench.build import build, build_optimizer
from zobench.errors import UserError
from zobench.first_order.in_backward import InBackward
from zobench.offload.model import Offload
from zobench.offload.points import OffloadedPoints
from zobench.run.auto_pack import choose
from zobench.run.base_model import base_of, check_base, device_for, digest_of
from zobench.run.best_weights import BestWeights
from zobench.run.captured import CapturedLoss, capture_evaluation, captured
from zobench.run.checkpoint import Checkpoints
from zobench.run.closure import check_captured, check_offload
from zobench.run.diagnosis import Diagnosis
from zobench.run.durable import renewed
from zobench.run.examples import check_examples, losses_by_example, wants_examples
from zobench.run.export import check_exportable, export
from zobench.run.fence import fence_of
from zobench.run.folder import PACK, RunFolder, read_json, write_atomically, write_json
from zobench.run.inputs import InputFiles, Inputs, check_inputs
from zobench.run.linear_probe import LinearProbe
from zobench.run.loggers.base import Logger
from zobench.run.loggers.none import NoLogger
from zobench.run.loop import Loop, RunCoroutine, complete
from zobench.run.meter import Meter
from zobench.run.metrics_log import MetricsLog
from zobench.run.notes import note
from zobench.run.progress import BudgetClock, RunProgress
from zobench.run.ranks.agreed import Agreed, WeightsDiffer, check_alike, check_ranks
from zobench.run.ranks.follower import SharedBestWeights, cut_back, own_folder
from zobench.run.ranks.group import Group
from zobench.run.ranks.shards import SharedProblem
from zobench.run.resume import resume_point_of, why_not_replayed
from zobench.run.steps import Steps
from zobench.run.stop import Stop
from zobench.run.zero_shot import ZeroShot
from zobench.settings import AUTO, Budget, Checkpoint, RunSettings, Train
from zobench.tasks.problem import ByExample, Problem
from zobench.zo.ledger import Ledger
from zobench.zo.optimizer import ZOOptimizer


class Prepared(NamedTuple):
    """The model, trainable parameters and task that a run's settings describe.

    base: the hash of the model; None if its weights are not loaded yet. inputs: the files read.
    """

    model: Any
    tokenizer: Any
    problem: Problem
    trainable: list[tuple[str, torch.nn.Parameter]]
    base: str | None
    inputs: Inputs
    capture: bool | None  # of forwards; None: where possible
    offload: Offload | None = None  # of the model's layers to main memory


def run(folder: RunFolder, stop: Stop | None = None, group: Group | None = None) -> dict[str, Any]:
    """Carry out the run of the folder's config.yaml; returns the content of result.json.

    Work of earlier attempts is not repeated; a finished run is only reported to a logger that has
    missed its end. All input is checked before the first file of results is opened.

    Args:
        folder: the run folder.
        stop: raises Stopped when a signal requests it.
        group: the ranks that share the run; the first writes to the folder.
    """
    settings = folder.run_settings()
    if folder.result.is_file():
        return _existing_result(folder, settings)
    device = device_for(settings, None if group is None else group.local_rank)
    meter = Meter(device)
    with meter.phase("load"):
        made = prepare_run(settings, device)
        settings = _packed(folder, settings, made, meter, group)
        optimizer, loss = _optimizer(settings, made, group)
    if made.offload is not None and isinstance(optimizer, ZOOptimizer):
        optimizer.evaluate_by(OffloadedPoints(made.offload, optimizer.engine).values)
    if not isinstance(optimizer, ZeroShot):  # whose shapes do not come again
        problem = capture_evaluation(made.problem, made.model, made.capture, loss)
        made = made._replace(problem=problem)
    if isinstance(optimizer, LinearProbe):  # may raise UserError, so before results are opened
        with meter.phase("fit"):
            optimizer.fit(made.model, made.problem, settings.evaluation.batch_size)
    if settings.train.checkpointing:
        checkpoint_activations(made.model)
    logger: Logger = (
        build(settings.logger, "logger") if group is None or group.first else NoLogger()
    )
    with own_folder(folder, group) as own:
        parts = (made, optimizer, meter, logger, stop or Stop(), group, loss)
        return complete(train_and_test(own, settings, *parts))


def _optimizer(
    settings: RunSettings, made: Prepared, group: Group | None
) -> tuple[torch.optim.Optimizer, CapturedLoss | None]:
    """The optimizer, and the loss where forwards are captured; UserError for what does not fit."""
    optimizer = build_optimizer(settings.optimizer, made.trainable, made.model)
    check_gradient(settings.train, made.problem, optimizer)
    if group is not None:
        check_ranks(settings.model, optimizer)
    check_captured(optimizer, settings.train.micro_batch_size, settings.train.nonfinite)
    check_offload(settings, optimizer)
    parts = (partial(made.problem.batch, [0]), made.capture, optimizer)
    ranks = 1 if group is None else group.size
    return optimizer, captured(made.problem.loss, made.model, *parts, ranks)


def _packed(
    folder: RunFolder, settings: RunSettings, made: Prepared, meter: Meter, group: Group | None
) -> RunSettings:
    """The settings with a number for `optimizer.pack=auto`, which is chosen once, and noted."""
    if settings.optimizer.get("pack") != AUTO:
        return settings

    def optimizer_of(own: RunSettings) -> tuple[torch.optim.Optimizer, CapturedLoss | None]:
        several = (own.optimizer.get("pack") or 1) > 1
        quiet = several and made.capture is None  # without the note that a pack is not captured
        return _optimizer(own, made._replace(capture=False) if quiet else made, group)

    ranks = 1 if group is None else group.size
    choice = choose(settings, made.model, made.problem, optimizer_of, meter, ranks)
    if group is None or group.first:
        write_json(folder.meta, read_json(folder.meta) | {PACK: choice._asdict()})
        print(choice.note, flush=True)
    return settings.with_pack(choice.points)


def prepare_run(settings: RunSettings, device: torch.device) -> Prepared:
    """Load data and model, the model to the device."""
    task = build(settings.task, "task")
    files = InputFiles(settings, task)
    loaded = base_of(settings, device)
    model = loaded.model
    base = digest_of(model)
    problem = task.prepare(loaded, device)
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    inputs = files.inputs()
    placed = loaded.capture, loaded.offload
    return Prepared(model, loaded.tokenizer, problem, trainable, base, inputs, *placed)


def train_and_test(
    folder: RunFolder,
    settings: RunSettings,
    made: Prepared,
    optimizer: torch.optim.Optimizer,
    meter: Meter,
    logger: Logger,
    stop: Stop | None = None,
    group: Group | None = None,
    loss: CapturedLoss | None = None,
) -> RunCoroutine:
    """Train, write folder and logger, and return the result.

    stop: None for one of several runs in a process. group: as in `run`. loss: with captured
    forwards; None is the problem's.
    """
    budget = Budget(steps=0) if isinstance(optimizer, ZeroShot) else settings.budget
    lines, first = stop is None, group is None or group.first
    if settings.train.export:
        check_exportable(made.model)
    stop = stop or Stop()
    agreed = None
    problem = made.problem
    if group is not None:
        every, trained = settings.ranks.check_every, made.trainable
        agreed = Agreed(group, stop, meter, trained, every, settings.seed)
        made = made._replace(problem=SharedProblem(problem, agreed, made.model, optimizer))
    clock = BudgetClock(budget, agreed or meter)
    checkpoints = _checkpoints(folder, settings.checkpoint, optimizer)
    resume = resume_point_of(folder, settings.seed, optimizer, checkpoints)
    device, meta = meter.device, read_json(folder.meta)
    base = made.base or digest_of(made.model)
    if resume.end:
        check_base(meta, base)
        check_inputs(folder, settings, made.inputs)
    else:
        meta.pop("wandb", None)  # a run that starts over is a new run in W&B
    if group is not None:
        check_alike(group, settings, (base, made.inputs), made.problem.sizes, resume)
        meta["ranks"] = group.size
        checkpoints = checkpoints if first else None
    meta["data"] = dict(made.problem.sizes)
    meta["parameters"] = sum(p.numel() for _, p in made.trainable)
    meta["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    meta |= {"base": base, "inputs": made.inputs}
    note(problem, meta, aloud=first)
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
            if wants_examples(optimizer):
                whole = partial(losses_by_example, cast(ByExample, made.problem))
            parts = (made.model, made.problem, optimizer, clock, resume, whole, ledger)
            loop = Loop(
                folder,
                settings.train,
                Steps(settings.train, settings.seed, *parts),
                eval_batch=settings.evaluation.batch_size,
                model=made.model,
                best=_best(folder, dict(made.trainable), settings.train.select, group),
                metrics_log=metrics_log,
                meter=meter,
                progress=progress,
                checkpoints=checkpoints,
                diagnosis=_diagnosis(settings.diagnose.every, optimizer),
                stop=agreed or stop,
            )
            result = yield from loop.work()
        if isinstance(optimizer, ZOOptimizer):
            size = made.problem.sizes["train"]
            rate = min(1.0, settings.train.batch_size / size)
            if report := optimizer.estimator.report(result["steps"], rate):
                result["estimator"] = report
        if settings.train.export and first:
            export(folder, made.model, made.tokenizer)
        write_json(folder.result, result)
    except BaseException as error:
        logger.abort()
        if isinstance(error, WeightsDiffer):
            cut_back(folder, error.agreed)
        raise
    _end(folder, settings.train, logger, result)
    return result


def _existing_result(folder: RunFolder, settings: RunSettings) -> dict[str, Any]:
    """The result of a finished run, after the logger has received it."""
    result = folder.ended()
    if folder.mirroring.exists():
        logger: Logger = build(settings.logger, "logger")
        rows = MetricsLog(folder.metrics, logger).rows
        logger.begin(folder, settings.plain, read_json(folder.meta), rows)
        _end(folder, settings.train, logger, result)
    return result


def _end(folder: RunFolder, train: Train, logger: Logger, result: Mapping[str, Any]) -> None:
    """After the result is written, remove the files to resume from, and end the logger."""
    if not train.keep_weights:
        fence_of(folder.path).remove(folder.weights)
    Checkpoints(folder.path, None, None).clear()
    logger.end(result)
    fence_of(folder.path).remove(folder.mirroring)


def _best(
    folder: RunFolder, trained: Mapping[str, Any], select: str | None, group: Group | None
) -> BestWeights:
    if group is not None:
        return SharedBestWeights(folder, trained, group, select)
    return BestWeights(folder.weights, trained, select=select)


def _checkpoints(
    folder: RunFolder, settings: Checkpoint, optimizer: torch.optim.Optimizer
) -> Checkpoints | None:
    """None if the ledger suffices and `checkpoint.beside_ledger` is not set."""
    if isinstance(optimizer, ZeroShot):
        return None
    if why_not_replayed(optimizer) is None and not settings.beside_ledger:
        return None
    return Checkpoints(folder.path, settings.steps, settings.minutes)


def check_gradient(train: Train, problem: Problem, optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError if the optimizer needs a gradient that the task lacks, and the like."""
    first_order = not isinstance(optimizer, ZOOptimizer | ZeroShot)
    if not first_order and (train.checkpointing or train.grad_clip):
        raise UserError(
            "train.checkpointing, train.grad_clip: this optimizer does not back-propagate"
        )
    parts = train.micro_batch_size is not None and train.micro_batch_size < train.batch_size
    if isinstance(optimizer, InBackward) and (
        train.grad_clip or train.nonfinite == "skip" or parts
    ):
        raise UserError(
            "train.grad_clip, train.nonfinite=skip, train.micro_batch_size: this optimizer moves"
            " weights inside the backward pass, before it has the whole gradient; set them to null"
        )
    check_examples(problem, optimizer)
    pack = optimizer.engine.pack if isinstance(optimizer, ZOOptimizer) else 1
    if not problem.differentiable and pack > 1:
        raise UserError(
            f"optimizer.pack={pack}: this task's loss judges answers and cannot be computed"
            " for several points at once; set optimizer.pack=null"
        )
    if not problem.differentiable and first_order:
        raise UserError(
            "task.loss: this loss has no gradient, which the optimizer needs; choose a"
            " zeroth-order one"
        )


def checkpoint_activations(model: Any) -> None:
    """Recompute activations in the backward pass; transformers 5.2x renamed the method."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)()


def _diagnosis(every: int | None, optimizer: torch.optim.Optimizer) -> Diagnosis | None:
    if not every:
        return None
    if not isinstance(optimizer, ZOOptimizer):
        raise UserError(f"diagnose.every={every}: only zeroth-order optimizers have directions")
    return Diagnosis(optimizer, every)
