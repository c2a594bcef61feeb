"""Evaluation for `make gpu`: its forwards launched and captured, and texts from either cache.

Rows as in SST-2: the synthetic reviews with the shipped tokenizer, and a model of random weights.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from zobench.bench.clock import seconds_of
from zobench.bench.evaluation import one_by_one
from zobench.build import build
from zobench.models.language_model import load
from zobench.run.captured import capture_evaluation
from zobench.schema import composed
from zobench.tasks.evaluation import LAUNCHED, Forwards, evaluating
from zobench.tasks.writing import Writer

T = TypeVar("T")
Row = dict[str, Any]
BATCH = 32
_OPTIONS = {"two words": "", "two phrases": " , that is what it is"}  # after both choices


def evaluation(
    device: torch.device, rows: int, alone: int, more: Sequence[str] = ()
) -> Iterator[Row]:
    """Seconds of dev, and its rows a second: a row at a time, launched, and captured.

    rows: of dev; alone: of the plain loop. more: overrides of the model.
    """
    for kind, after in _OPTIONS.items():
        task = {"task.sizes.train": 2, "task.sizes.dev": rows, "task.sizes.test": 2}
        problem = _problem(device, [*more, *(f"{k}={v}" for k, v in task.items())], after)
        model = problem.encoder.model
        shown = {"what": f"dev, {rows} rows, {kind}"}
        some = problem.eval_examples["dev"][:alone]
        with evaluating(model):
            _, seconds = _timed(device, partial(one_by_one, model, some))
        yield shown | {"how": "a row and a choice at a time", "rows a second": alone / seconds}
        captured = capture_evaluation(problem, model, None)
        plain = problem.evaluate(model, "dev", BATCH)  # what is set up once is not timed
        ways = (("launched", problem), ("captured, first", captured), ("captured", captured))
        for how, one in ways:
            found, seconds = _timed(device, partial(one.evaluate, model, "dev", BATCH))
            apart = abs(found["loss"] - plain["loss"])
            timed = {"seconds": seconds, "rows a second": rows / seconds, "loss apart": apart}
            yield shown | {"how": how} | timed


def generation(
    device: torch.device, rows: int, tokens: int, more: Sequence[str] = ()
) -> Iterator[Row]:
    """Seconds of `rows` texts of `tokens` tokens: by a growing cache, and by a static one."""
    problem = _problem(device, [*more, "task.sizes.dev=8", "task.sizes.test=2"], "")
    model, encoder = problem.encoder.model, problem.encoder
    captured = capture_evaluation(problem, model, None).forwards
    prompts = [e.candidates[0].context for e in problem.eval_examples["dev"]]
    prompts = [prompts[number % len(prompts)] for number in range(rows)]
    plain: list[str] = []
    for how, forwards in {"growing cache": LAUNCHED, "static cache": captured}.items():
        texts, seconds = _written(device, encoder, prompts, tokens, forwards)
        plain = plain or texts
        equal = sum(a == b for a, b in zip(texts, plain, strict=True)) / rows
        yield {
            "what": f"{rows} texts of {tokens} tokens",
            "how": how,
            "seconds": seconds,
            "tokens a second": rows * tokens / seconds,
            "texts are equal": equal,
        }


def _written(
    device: torch.device, encoder: Any, prompts: Sequence[Any], tokens: int, forwards: Forwards
) -> tuple[list[str], float]:
    """Texts that no end stops, and the seconds of the second time."""
    writer = Writer(encoder.tokenizer, (), tokens, encoder.padding, device)
    once = partial(writer, encoder.model, prompts, forwards)
    with evaluating(encoder.model):
        once()
        return _timed(device, once)


def _timed(device: torch.device, once: Callable[[], T]) -> tuple[T, float]:
    """The result of one call, and its seconds."""
    found: list[T] = []
    seconds = seconds_of(lambda: found.append(once()), device)
    return found[0], seconds


def _problem(device: torch.device, words: Sequence[str], after: str) -> Any:
    """Reviews with two choices, each with a text after it, for a model of random weights."""
    own = ["model=opt_125m", "++model.path=null", "model.weights=random", "model.dtype=bfloat16"]
    settings = composed(*own, *words)
    tokenizer: Any = load(path="zobench:tiny").tokenizer
    loaded = build(settings["model"], "model")
    loaded.model.to(device)
    loaded.model.generation_config.eos_token_id = None
    tokenizer.model_max_length = loaded.model.config.max_position_embeddings
    task = settings["task"] | {"choices": [c + after for c in settings["task"]["choices"]]}
    return build(task).prepare(loaded._replace(tokenizer=tokenizer), device)
