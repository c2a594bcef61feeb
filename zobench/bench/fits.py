"""`zobench fits`: the memory that a step of a run needs, before anything is loaded.

The model, the batch and the optimizer are made of tensors that have shapes but no contents (torch's
FakeTensorMode). A step is taken with them, and the bytes that live at a time are counted.
"""

import argparse
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from zobench.bench.subject import Subject, subject_of
from zobench.build import build_optimizer
from zobench.errors import UserError
from zobench.hydra_app import values_in
from zobench.offload.room import room_on_device
from zobench.run.closure import CountedLoss, state_bytes
from zobench.run.runner import checkpoint_activations
from zobench.run.zero_shot import ZeroShot
from zobench.schema import composed
from zobench.zo import noise
from zobench.zo.arithmetic import REMAINDER
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes import fused
from zobench.zo.samplers.base import ReplayClass
from zobench.zo.space import Slot

GIB = 2**30
_CONTEXT = 0.75  # GiB of a GPU that CUDA and the kernels' own workspaces take
# What may make a run fit, in the order in which it is tried.
_CHANGES: tuple[Mapping[str, str], ...] = (
    {"train.checkpointing": "true"},
    {"train.micro_batch_size": "1"},
    {"train.checkpointing": "true", "train.micro_batch_size": "1"},
    {"optimizer": "lomo"},
    {"optimizer": "lomo", "train.checkpointing": "true"},
    {"tuning": "lora"},
    {"tuning": "lora", "train.checkpointing": "true", "train.micro_batch_size": "1"},
    {"tuning": "qlora", "train.checkpointing": "true", "train.micro_batch_size": "1"},
    {"optimizer": "mezo"},
    {"optimizer": "mezo", "tuning": "lora"},
    {"optimizer": "mezo", "tuning": "qlora"},
)


class Need(NamedTuple):
    """Bytes of a run: of its weights, kept by its optimizer between steps, and at the peak."""

    weights: int
    state: int
    peak: int

    @property
    def rest(self) -> int:
        """Activations, logits, and gradients that do not outlive a step."""
        return self.peak - self.weights - self.state


class Bytes(TorchDispatchMode):
    """Counts the bytes of tensors that live at a time, and their peak, within its context."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func is torch.ops.aten._local_scalar_dense.default:  # a number, which a fake has not
            return 1.0 if args[0].is_floating_point() else 1
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._see, out)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place not in self._known:
            self._known.add(place)
            self._change(size)
            weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._change(-size)

    def _change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def need_of(settings: Mapping[str, Any], tokens: int, *, gpu: bool = False) -> Need:
    """What a run of these settings needs in its steps.

    Args:
        settings: Composed ones; of the task nothing is used.
        tokens: Of each example.
        gpu: Whether for a GPU; else for this machine's CPU.

    Returns:
        The bytes. Those of libraries, of an allocator, and of a GPU's context are not in it.

    Raises:
        UserError: The model is none of language, or its sizes are not in the settings or in a local
            folder; or the optimizer is not covered.
    """
    train, quantization = settings["train"], settings["model"].get("quantization")
    of_batch = measured_with(settings, tokens)
    of_batch["model"]["quantization"] = None
    whole, part = train["batch_size"], of_batch["batch_size"]
    with ExitStack() as stack:
        if gpu:
            stack.enter_context(patch("zobench.models.language_model.has_instructions", _true))
        stack.enter_context(patch.multiple(noise, draw=_not_drawn, add=_not_added))
        stack.enter_context(patch.object(fused, "run_numba", _not_added))
        stack.enter_context(patch.object(Slot, "square_norm", lambda *_: 1.0))
        stack.enter_context(patch.object(torch.nn.Module, "_apply", _applied))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        alive = stack.enter_context(Bytes())
        subject = subject_of(of_batch, torch.device("cpu"))
        smaller, product = _quantised(subject, quantization)
        weights = _bytes_of(subject.model)
        before = alive.now - weights
        optimizer = build_optimizer(settings["optimizer"], subject.trainable, subject.model)
        if train["checkpointing"]:
            checkpoint_activations(subject.model)
        alive.peak = alive.now  # what loading takes for a moment is not what a step takes
        precision = train["precision"] and getattr(torch, train["precision"])
        loss = CountedLoss(subject.model, subject.loss, precision)
        state = _step(subject, optimizer, loss, min(-(-whole // part), 2))
        peak = alive.peak - before
    if isinstance(optimizer, ZOOptimizer):
        peak += state - _held(optimizer)
        if settings["model"].get("offload"):
            return _offloaded(subject, optimizer, peak - weights - state)
    return Need(weights - smaller, state, peak - smaller + product)


def measured_with(settings: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """What `subject_of` takes: the run's model with random weights, a part of a batch."""
    model: dict[str, Any] = dict(settings["model"])
    if not str(model["_target_"]).startswith("zobench.models.language_model."):
        raise UserError("fits: choose a language model, such as model=opt_125m")
    train = settings["train"]
    part = min(train["micro_batch_size"] or train["batch_size"], train["batch_size"])
    model |= {"weights": "random", "weights_device": None, "device_map": None, "offload": None}
    fixed = {"logits": "labels", "batch_size": part, "tokens": tokens, "seed": 0}
    return {"model": model, "tuning": settings["tuning"], **fixed}


def _step(subject: Subject, optimizer: torch.optim.Optimizer, loss: CountedLoss, parts: int) -> int:
    """Take two steps; returns the bytes that are kept between them."""
    batch = subject.batch
    if isinstance(optimizer, ZOOptimizer):
        if isinstance(optimizer.estimator, ForwardGradient):
            raise UserError("fits: forward-mode differentiation is not covered; measure it")
        sampler = optimizer.engine.sampler
        with torch.no_grad():
            if sampler.replay_class is ReplayClass.DATA:  # activations tell what it will keep
                sampler.begin_step(0)
                with sampler.watch():
                    loss.whole(batch)
                sampler.end_step()
            else:
                loss.whole(batch)
        parts_of = optimizer.engine.sampler, optimizer.estimator, optimizer.rule
        slots = optimizer.engine.slots
        remainders = (slot.buffers[REMAINDER].nbytes for slot in slots if REMAINDER in slot.buffers)
        return sum(remainders) + sum(p.state_bytes(slot) for p in parts_of for slot in slots)
    if isinstance(optimizer, ZeroShot):
        with torch.no_grad():
            loss.whole(batch)
        return 0
    subject.model.train()
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(parts):
            loss.whole(batch).backward()
        optimizer.step()
    return state_bytes(optimizer)


def _held(optimizer: ZOOptimizer) -> int:
    """Bytes that the optimizer has before its first step, such as remainders of 16-bit weights."""
    return sum(b.nbytes for slot in optimizer.engine.slots for b in slot.buffers.values())


def _offloaded(subject: Subject, optimizer: ZOOptimizer, rest: int) -> Need:
    """On the device, with the model's layers in main memory; rest: of one forward.

    While a point is evaluated, the hidden state of each other one waits.
    """
    points, slots = round(optimizer.estimator.forwards), optimizer.engine.slots
    room = room_on_device(subject.model, slots, points)
    width = subject.model.config.get_text_config().hidden_size
    hidden = subject.batch.input_ids.numel() * width * slots[0].parameter.element_size()
    return Need(room, 0, room + rest + (points - 1) * hidden)


def _bytes_of(model: torch.nn.Module) -> int:
    """Of parameters and buffers, tied ones once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _quantised(subject: Subject, kind: str | None) -> tuple[int, int]:
    """Bytes by which quantised weights are smaller, and of the largest one as it is multiplied."""
    if kind is None:
        return 0, 0
    head = subject.model.get_output_embeddings()
    smaller, largest = 0, 0
    for module in subject.model.modules():
        if type(module) is torch.nn.Linear and module is not head:
            weight = module.weight
            if weight.requires_grad:
                continue
            count, whole = weight.numel(), weight.numel() * weight.element_size()
            scales = len(weight) * weight.element_size()
            # nf4: a byte for 64 scales of blocks of 64, and a float32 for 256 of these
            stored = count + scales if kind == "int8" else count / 2 + count / 64 + count / 4096
            smaller += int(whole - stored)
            largest = max(largest, whole)
    return smaller, largest


def _true(*_: Any) -> bool:
    return True


def _not_drawn(law: Any, stream: Any, start: int, count: int, device: torch.device) -> Tensor:
    """In place of `noise.draw`, whose kernels write into memory."""
    del law, stream, start
    return torch.empty(count, device=device)


def _not_added(*_: Any, **__: Any) -> None:
    """In place of `noise.add` and of passes, whose kernels write into memory."""


def _applied(module: Any, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
    """In place of `Module._apply`, which swaps tensors in a way that fakes refuse."""
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, tensor in module._parameters.items():
        if tensor is not None and (other := function(tensor.detach())).dtype != tensor.dtype:
            module._parameters[name] = torch.nn.Parameter(other, tensor.requires_grad)
    for name, tensor in module._buffers.items():
        if tensor is not None:
            module._buffers[name] = function(tensor)
    return module


class Case(NamedTuple):
    """Overrides of a run, by key, and the tokens of an example."""

    overrides: Mapping[str, str]
    tokens: int

    def need(self, gpu: bool) -> Need:
        """See `need_of`."""
        settings = composed(*(f"{key}={value}" for key, value in self.overrides.items()))
        return need_of(settings, self.tokens, gpu=gpu)

    def changed(self, change: Mapping[str, str]) -> "Case | None":
        """With other settings; None where it has them."""
        if all(self.overrides.get(key) == value for key, value in change.items()):
            return None
        return Case({**self.overrides, **change}, self.tokens)


def cases_of(arguments: Sequence[str]) -> list[Case]:
    """All combinations of the overrides; `tokens` is not one of a run's settings."""
    found = []
    swept = values_in(list(arguments))
    for values in itertools.product(*swept.values()):
        named = dict(zip(swept, values, strict=True))
        count = named.pop("tokens", "512")
        if not count.isdigit() or int(count) < 1:
            raise UserError(f"tokens={count}: give a number, at least 1")
        found.append(Case(named, int(count)))
    return found


def remedies(case: Case, room: float) -> Iterator[str]:
    """Changes with which a run fits into `room` bytes, with its peak."""
    for change in _CHANGES:
        if (other := case.changed(change)) is None:
            continue
        try:
            peak = other.need(gpu=True).peak
        except (UserError, ValueError):  # such as an optimizer that takes its batch at once
            continue
        if peak <= room:
            yield f"{' '.join(f'{k}={v}' for k, v in change.items())} ({peak / GIB:.3g} GiB)"


def main(arguments: Sequence[str]) -> int:
    """Command line of `zobench fits`; exit status 1 if a run does not fit."""
    parser = argparse.ArgumentParser(
        prog="zobench fits",
        description="The memory that runs need, from their settings alone; lists are combined.",
        epilog="zobench fits model=llama3_8b optimizer=adamw,mezo tuning=full,lora"
        " train.batch_size=16 tokens=512 --gpu 24",
    )
    parser.add_argument("--gpu", type=float, metavar="GIB", help="memory of the GPU to fit into")
    parser.add_argument("overrides", nargs="*", help="as of a run; tokens=N of each example")
    given = parser.parse_args(list(arguments))
    cases = cases_of(given.overrides)
    keys = sorted({key for case in cases for key in case.overrides}, key=_order)
    head = [*keys, "tokens", "weights", "state", "activations", "peak GiB"]
    if given.gpu is not None:
        head.append(f"in {given.gpu:g} GiB")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    everything = True
    for case in cases:
        named = [case.overrides.get(key, "") for key in keys] + [str(case.tokens)]
        need = case.need(gpu=given.gpu is not None)
        sizes = (need.weights, need.state, need.rest, need.peak)
        cells = named + [f"{size / GIB:.3g}" for size in sizes]
        if given.gpu is not None:
            room = (given.gpu - _CONTEXT) * GIB
            fits = need.peak <= room
            everything = everything and fits
            cells.append("fits" if fits else _advice(case, room))
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0 if everything else 1


def _advice(case: Case, room: float) -> str:
    found = []
    for remedy in remedies(case, room):
        found.append(remedy)
        if len(found) == 2:
            break
    return f"does not fit; fits with {', or '.join(found)}" if found else "does not fit"


def _order(key: str) -> tuple[int, str]:
    first = ("model", "tuning", "optimizer")
    return (first.index(key) if key in first else len(first), key)
