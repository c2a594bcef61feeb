"""Captured evaluations: the values of launched ones, by graphs that are used again."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.recorder import Recorder, capturing
from tests.small_models import small_config
from tests.tasks.test_generation import task
from tests.tasks.test_shared_prefix import encoded, loud
from zobench.build import build
from zobench.interface import Interface
from zobench.run.captured import capture_evaluation
from zobench.tasks.batch import collate
from zobench.tasks.problem import Answer
from zobench.tasks.shared_prefix import PrefixBatch, shared_prefix_scores
from zobench.tuning.prefix import prefix

Compose = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
SIZES = ("task.sizes.train=2", "task.sizes.dev=3", "task.sizes.test=2", "task.truncation=left")
LONGER = "task.choices=[' terrible , that is what it is',' great , that is']"
# Both scores of shared prefixes, losses that are no function of scores, heads, virtual tokens.
TASKS: dict[str, tuple[str, ...]] = {
    "calibrated": (LONGER, "task.calibrated=true"),
    "answer": ("task.loss=answer",),
    "head": (),
    "prefix": (LONGER,),
}


def prepared(compose: Compose, tokenizer: Any, kind: str) -> tuple[Any, Any]:
    """A small model and its problem, with two batches of dev."""
    config = small_config("opt")
    config.num_hidden_layers = 1  # recording takes its time
    model, interface = loud(config), Interface.CAUSAL
    if kind == "head":
        from transformers import OPTForSequenceClassification

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = OPTForSequenceClassification(config).eval()
        interface = Interface.CLASSIFIER
    if kind == "prefix":
        model = prefix(model, seed=0).eval()
    loaded = SimpleNamespace(model=model, tokenizer=tokenizer, interface=interface)
    return model, build(compose(*SIZES, *TASKS[kind])["task"]).prepare(loaded, CPU)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """All that a CUDA device would allow is captured on the CPU."""
    with capturing() as made:
        yield made


class Padded:
    """Forwards that are launched, on batches of the sizes that are captured."""

    records = False

    def __call__(self, forward: Any, model: Any, batch: Any) -> Tensor:
        found: Tensor = forward(model, batch.widened(2**10))
        return found


def evaluated(problem: Any, model: Any) -> tuple[dict[str, float], list[Answer]]:
    """Values and answers of dev, in batches of 2."""
    answers: list[Answer] = []
    return problem.evaluate(model, "dev", 2, answers), answers


def moved(model: Any) -> None:
    """Change all weights, where they are."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize("kind", TASKS)
def test_captured_evaluations_are_those_of_the_same_batches_launched(
    compose: Compose, tokenizer: Any, recorder: Recorder, kind: str
) -> None:
    """Bit for bit, before and after the weights have moved; those of plain batches to rounding."""
    model, problem = prepared(compose, tokenizer, kind)
    captured = capture_evaluation(problem, model, None)
    padded = problem.evaluated_by(Padded())
    seen = []
    for _ in range(2):
        found, answers = evaluated(captured, model)
        seen.append(recorder.recorded)
        assert (found, answers) == evaluated(padded, model)
        assert found == pytest.approx(evaluated(problem, model)[0], abs=2e-5)
        moved(model)
    assert 0 < seen[0] == seen[1]


def test_one_recorder_serves_training_and_evaluation_and_false_serves_none(
    compose: Compose, tokenizer: Any, recorder: Recorder
) -> None:
    """`model.capture=false` leaves the problem as it is."""
    model, problem = prepared(compose, tokenizer, "answer")
    assert capture_evaluation(problem, model, False) is problem
    like: Any = SimpleNamespace(record=recorder)
    found = capture_evaluation(problem, model, None, like)
    assert found.forwards.record is recorder


def test_padding_of_shared_prefixes_changes_no_value() -> None:
    """Prefixes on the left, continuations on the right, places and rows at the end."""
    model = loud(small_config("llama"))
    shape = [(61, (5, 1, 2)), (37, (2, 7)), (44, (1, 1, 1, 6))]
    batch = collate([encoded(p, c, n) for n, (p, c) in enumerate(shape)], 1, 128)
    wide: list[PrefixBatch] = []

    class Widest(Padded):
        def __call__(self, forward: Any, model: Any, reads: Any) -> Tensor:
            wide.append(reads.widened(128))
            assert reads.widened(60).passes[0].width == reads.passes[0].width
            found: Tensor = forward(model, wide[-1])
            return found

    plain = shared_prefix_scores(model, batch, 3)
    assert plain is not None
    found = shared_prefix_scores(model, batch, 3, forwards=Widest())  # type: ignore[arg-type]
    torch.testing.assert_close(found, plain, rtol=0.0, atol=1e-5)
    assert wide[0].passes[0].width == 64
    assert len({one.width for one in wide[0].passes[1:]}) == 1


def test_rows_of_one_length_at_a_time_are_launched(
    compose: Compose, tokenizer: Any, recorder: Recorder
) -> None:
    """How often the model is called depends on the rows there."""
    model, problem = prepared(compose, tokenizer, "answer")
    problem.encoder.alone = True
    captured = capture_evaluation(problem, model, None)
    assert evaluated(captured, model) == evaluated(problem, model)
    assert recorder.recorded == 0


@pytest.mark.parametrize("kind", ["opt", "qwen3"])  # the latter has masks by kind of layer
def test_texts_are_those_of_the_growing_cache(
    tokenizer: Any, recorder: Recorder, kind: str
) -> None:
    """A graph for each batch of prompts, which writes all tokens but the first."""
    model = loud(small_config(kind))
    loaded: Any = SimpleNamespace(model=model, tokenizer=tokenizer, interface=Interface.CAUSAL)
    problem = task(stop=["zzz"]).prepare(loaded, CPU)
    captured = capture_evaluation(problem, model, None)
    assert evaluated(captured, model)[1] == evaluated(problem, model)[1]
    assert (recorder.recorded, recorder.replayed) == (4, 2 * 7 + 2)
    assert "forward" not in vars(model)


def test_a_model_without_a_static_cache_says_so_once(
    tiny_opt: Any, tokenizer: Any, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its texts are generated as before."""
    loaded: Any = SimpleNamespace(model=tiny_opt, tokenizer=tokenizer, interface=Interface.CAUSAL)
    problem = task().prepare(loaded, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tiny_opt), "_can_compile_fullgraph", False)
        captured = capture_evaluation(problem, tiny_opt, None)
    said = capsys.readouterr().out
    assert said == (
        "model.capture: texts are generated token by token: OPTForCausalLM does not generate with"
        " transformers' static cache\n"
    )
    texts = captured.writer(tiny_opt, [(5, 6, 7)], captured.steps)
    assert texts == problem.writer(tiny_opt, [(5, 6, 7)])
    assert recorder.recorded == 0
