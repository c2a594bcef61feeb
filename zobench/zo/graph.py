"""A whole step as one CUDA graph: its forwards, passes and scalars, launched at once.

Nothing in a captured step waits for the device. The numbers that change from step to step (learning
rate, radius and the keys of the noise) are read from a buffer that is filled before. Sampler,
estimator and rule must leave nothing for the host to decide: `check_graph` checks it. The losses
come back at the end; a step with a loss that is not finite changes nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from zobench.zo import noise
from zobench.zo.engine import Diverged, drive
from zobench.zo.estimators.base import Estimator
from zobench.zo.feedback import GRAD, Request
from zobench.zo.ledger import Record
from zobench.zo.moves import Recipe
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import ReplayClass, Sampler
from zobench.zo.scalars import Scalar, Scalars


def check_graph(optimizer: ZOOptimizer) -> None:
    """Raise ValueError in one sentence for an optimizer whose steps cannot be captured."""
    engine = optimizer.engine
    _check_parts(engine.sampler, optimizer.estimator, optimizer.rule)
    if engine.pack > 1:
        raise ValueError("graph: a captured step evaluates one point at a time; set pack=1")
    devices = {slot.parameter.device for slot in engine.slots}
    if len(devices) > 1 or {device.type for device in devices} != {"cuda"}:
        raise ValueError(
            "graph: only steps of weights on one CUDA device are captured, and these are on"
            f" {', '.join(sorted(map(str, devices)))}"
        )


def _check_parts(sampler: Sampler, estimator: Estimator, rule: Rule) -> None:
    named = {part: type(part).__name__ for part in (sampler, estimator, rule)}
    if not is_plain_noise(sampler):
        raise ValueError(
            f"graph: sampler {named[sampler]} decides at every step what it draws, which a captured"
            " step cannot do; choose gaussian or rademacher"
        )
    if not estimator.device_scalars:
        raise ValueError(
            f"graph: estimator {named[estimator]} reads its losses within the step, which a"
            " captured step cannot do; choose two_sided, one_sided or rloo"
        )
    if not rule.device_scalars:
        raise ValueError(
            f"graph: rule {named[rule]} cannot be captured; choose sgd, or momentum with"
            " per_query=false"
        )


def is_plain_noise(sampler: Sampler) -> bool:
    """Whether directions are plain noise on every slot, with nothing but the key to choose."""
    if sampler.replay_class is not ReplayClass.PURE or sampler.weighted:
        return False
    if sampler.by_key or type(sampler).begin_step is not Sampler.begin_step:
        return False
    recipes = [sampler.recipe(slot) for slot in sampler.slots]
    return all(recipe is not None and recipe == Recipe(recipe.law) for recipe in recipes)


class StepGraph:
    """Steps of an optimizer on one closure, whose input tensors must stay at their addresses.

    The first step is launched kernel by kernel, which compiles the kernels and makes all state;
    then one is captured, and from the second on the graph is launched. On a CPU nothing can be
    captured: every step is like the first. pool: memory shared with other graphs of the same
    device, of which one runs at a time.
    """

    def __init__(
        self, optimizer: ZOOptimizer, closure: Callable[[], Tensor], pool: Any = None
    ) -> None:
        self.optimizer, self._closure, self._pool = optimizer, closure, pool
        self._device = optimizer.engine.slots[0].parameter.device
        self._queries = range(optimizer.estimator.directions)
        count, pinned = 2 + 2 * len(self._queries), self._device.type == "cuda"
        self._host = torch.empty(count, dtype=torch.float64, pin_memory=pinned)
        self._inputs = torch.empty(count, dtype=torch.float64, device=self._device)
        self._tables: dict[bytes, Tensor] = {}  # of the passes, for as long as the graph reads them
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(self._device) if pinned else None
        self._results = self._inputs
        self._forwards = self._losses = 0  # of a step

    @torch.no_grad()
    def step(self) -> float:
        """One step; returns the loss. It waits for the device once, at its end.

        Raises Diverged when a loss is not finite, with state and weights as before the step.
        """
        self._refresh()
        if self._graph is not None:
            self._graph.replay()
            self.optimizer.engine.forwards += self._forwards
            return self._read(self._results)
        with self._beside():
            results = self._body()
        loss = self._read(results)
        if self._stream is not None:
            self._capture(self._stream)
        return loss

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """On the stream that will be captured, where there is one."""
        if self._stream is None:
            yield
            return
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            yield
        usual.wait_stream(self._stream)

    def _refresh(self) -> None:
        """Rate, radius and keys of this step; the last step's copy has been made when it ended."""
        optimizer, group = self.optimizer, self.optimizer.param_groups[0]
        keys = [noise.mix(optimizer.engine.seed, optimizer.steps, query) for query in self._queries]
        words = chain.from_iterable((key & 0xFFFFFFFF, key >> 32) for key in keys)
        self._host.copy_(torch.tensor([group["eps"], group["lr"], *words], dtype=torch.float64))
        self._inputs.copy_(self._host, non_blocking=True)

    def _capture(self, stream: torch.cuda.Stream) -> None:
        """Record the next step, without taking it."""
        graph, forwards = torch.cuda.CUDAGraph(), self.optimizer.engine.forwards
        # relaxed: tables are copied to the device at the same time
        with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="relaxed"):
            self._results = self._body()
        self._graph, self.optimizer.engine.forwards = graph, forwards

    def _body(self) -> Tensor:
        """Launch the step; returns the loss to report, all losses and the coefficients."""
        optimizer, engine, step = self.optimizer, self.optimizer.engine, self.optimizer.steps
        before = engine.forwards
        with Scalars(self._device, self._tables) as scalars:
            eps, lr, *words = map(scalars.of, self._inputs.unbind())
            for query, low, high in zip(self._queries, words[::2], words[1::2], strict=True):
                scalars.keys[noise.mix(engine.seed, step, query)] = low, high

            def evaluate(requests: Sequence[Request]) -> Sequence[Any]:
                del requests  # one, of the step's own batch
                return (scalars.of(self._closure().double()),)

            given: Any = {"eps": eps, "lr": lr}  # scalars take the place of floats
            asks = engine.evaluation(optimizer.estimator, step=step, **given)
            feedback: Any = drive(asks, evaluate)
            losses: list[Any] = list(engine.losses)
            sound = torch.stack([loss.tensor for loss in losses]).isfinite().all()
            scalars.gate = scalars.of(sound.double())
            rate: Any = lr.gated(scalars.gate)
            engine.update(feedback, optimizer.rule, step=step, lr=rate)
            made: list[Scalar] = [feedback.loss, *losses, *feedback.channels[GRAD].values()]
            self._forwards, self._losses = engine.forwards - before, len(losses)
            return torch.stack([scalar.tensor for scalar in made])

    def _read(self, results: Tensor) -> float:
        """Wait for the results, and note the step as an optimizer does."""
        optimizer = self.optimizer
        loss, *others = results.tolist()
        losses = tuple(others[: self._losses])
        optimizer.engine.losses = list(losses)
        if bad := [value for value in losses if not math.isfinite(value)]:
            hint = "" if optimizer.steps else optimizer.engine.displacement.hint
            raise Diverged(f"the loss is {bad[0]} at step {optimizer.steps}{hint}")
        optimizer.record = Record(
            optimizer.param_groups[0]["lr"], losses, tuple(others[self._losses :])
        )
        optimizer.steps += 1
        return float(loss)
