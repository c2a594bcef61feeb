"""Captured forwards: the same losses, few shapes, and reasons where it cannot be."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.recorder import Recorder, capturing
from zobench.build import build_optimizer
from zobench.errors import UserError
from zobench.models.loaded import LoadedModel
from zobench.run import captured
from zobench.run.captured import CapturedLoss, why_not
from zobench.run.folder import RunFolder
from zobench.run.runner import prepare_run, run
from zobench.settings import RunSettings
from zobench.tasks.batch import Batch
from zobench.tasks.problem import Indices
from zobench.zo.ledger import read

Compose = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
SIZES = ("task.sizes.train=24", "task.sizes.dev=8", "task.sizes.test=8", "train.batch_size=4")
ROWS = [  # plain, learnt, several queries, tensors left out, activations, tangents, other batches
    "mezo",
    "conmezo",
    "ldsd_sgd",
    "loren",
    "curvzo",
    "agzo",
    "forward_gradient",
    "mezo_svrg",
    "dizo",
    "mezo arithmetic=stochastic model.dtype=bfloat16",
    "mezo model.dtype=bfloat16",
    "mezo tuning=lora",
    "mezo tuning=prefix",
    "mezo train.micro_batch_size=3",
    "mezo train.precision=bfloat16",
    "mezo task.loss=sequence",
]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """All of a training that a CUDA device would allow is captured on the CPU."""
    with capturing() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr("zobench.run.runner.capture_evaluation", lambda problem, *_: problem)
        yield made


@pytest.fixture
def carry_out(compose: Compose, tmp_path: Any) -> Callable[..., RunFolder]:
    """`carry_out("optimizer=mezo")`: the folder of a run of four steps."""

    def carry_out(*overrides: str) -> RunFolder:
        folder = RunFolder(tmp_path / str(len(list(tmp_path.iterdir()))))
        words = ("logger=none", *SIZES, "budget.steps=4", "threads=1", *overrides)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
        folder.begin(compose(*words), meta)
        run(folder)
        return folder

    return carry_out


@pytest.mark.parametrize("row", ROWS)
def test_captured_losses_are_those_of_the_same_batches_launched(
    carry_out: Callable[..., RunFolder],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    row: str,
) -> None:
    """Bit for bit, for all methods, with and without a diagnosis."""
    words = f"optimizer={row}".split()
    recorded = list(read(carry_out(*words).ledger))
    captures = "stochastic" not in row and "forward_gradient" not in row
    assert (recorder.recorded > 0) is captures
    assert recorder.replayed > recorder.recorded or not captures

    def launched(loss: Any, model: Any, some: Any, wanted: Any, optimizer: Any, *_: Any) -> Any:
        del model, some, wanted

        def wide(model: Any, batch: Any) -> Tensor:
            widens = optimizer.engine.bare and captures
            return loss(model, batch.widened(2**10) if widens else batch)

        return wide

    monkeypatch.setattr("zobench.run.runner.captured", launched)
    assert list(read(carry_out(*words).ledger)) == recorded


@pytest.mark.usefixtures("recorder")
def test_a_resumed_run_gets_the_same_bits(
    carry_out: Callable[..., RunFolder],
) -> None:
    """The first loss of a shape comes from its graph, as later ones do."""
    longer = carry_out("optimizer=mezo", "budget.steps=6")
    shorter = carry_out("optimizer=mezo")
    assert list(read(longer.ledger))[:4] == list(read(shorter.ledger))


def batch_of(compose: Compose, *words: str) -> tuple[Any, Any, Batch]:
    """A model, its problem, and a batch of three."""
    settings = compose("logger=none", *SIZES, *words)
    made = prepare_run(RunSettings.of(settings), CPU)
    batch: Any = made.problem.batch([0, 1, 2])
    return made.model, made.problem, batch


TASKS = [(), ("task.loss=answer",), ("task.loss=sequence",), ("model.head=classification",)]


@pytest.mark.parametrize("words", TASKS)
def test_filler_changes_no_loss(compose: Compose, words: Sequence[str]) -> None:
    """Nor the outputs of an example; no row gets longer than the model allows."""
    model, problem, batch = batch_of(compose, *words)
    width = batch.input_ids.shape[1]
    for longest in (width, width + 1, 4 * width):
        wide = batch.widened(longest)
        assert wide.input_ids.shape[1] <= longest
        with torch.no_grad():
            assert float(problem.loss(model, wide)) == pytest.approx(
                float(problem.loss(model, batch)), abs=1e-6
            )
    assert problem.weight(wide) == problem.weight(batch)


def test_shapes_are_few(compose: Compose) -> None:
    """A hundred widths and as many depths become a dozen of each."""
    _, _, batch = batch_of(compose)
    widths, depths = set(), set()
    for size in range(1, 513):
        ids = torch.ones(3, size, dtype=torch.long)
        target = torch.ones(len(batch.target), size, dtype=torch.long)
        long = replace(batch, input_ids=ids, attention_mask=ids, picked=target, target=target)
        wide = long.widened(2**10)
        widths.add(wide.input_ids.shape[1])
        depths.add(wide.target.shape[1])
        assert size <= wide.input_ids.shape[1] <= 1.125 * size + 1
    assert len(widths) <= 60
    assert len(depths) <= 10


@pytest.fixture
def alone(compose: Compose, recorder: Recorder) -> Iterator[Callable[..., Any]]:
    """`alone(limit=2)`: a captured loss, its model and problem, and batches of different shapes."""

    def make(**options: Any) -> Any:
        settings = compose("logger=none", *SIZES)
        made = prepare_run(RunSettings.of(settings), CPU)
        optimizer: Any = build_optimizer(settings["optimizer"], made.trainable, made.model)
        optimizer.engine.bare = True
        loss = CapturedLoss(made.problem.loss, optimizer.engine, recorder, **options)
        batches = [made.problem.batch(range(count)) for count in (1, 2, 3)]
        return loss, made.model, made.problem, batches

    with torch.no_grad():
        yield make


def test_graphs_are_at_most_so_many(alone: Callable[..., Any], recorder: Recorder) -> None:
    """The least recently used graph is dropped, and recorded again when it is needed."""
    loss, model, _, (one, two, three) = alone(limit=2)
    for batch, count in ((one, 1), (two, 2), (one, 2), (three, 3), (one, 3), (two, 4), (two, 4)):
        loss(model, batch)
        assert recorder.recorded == count


def test_a_loss_is_the_callers_to_keep(alone: Callable[..., Any]) -> None:
    """The next one of the same shape does not overwrite it."""
    loss, model, problem, _ = alone()
    batches = [problem.batch([n]) for n in range(6)]
    losses = [loss(model, batch) for batch in batches]
    again = [loss(model, batch) for batch in batches]
    assert [float(value) for value in losses] == [float(value) for value in again]
    assert len({float(value) for value in losses}) > 1


def test_weights_that_have_moved_are_found_again(
    alone: Callable[..., Any], recorder: Recorder
) -> None:
    """A graph has their addresses, which somebody may change."""
    loss, model, problem, (one, *_) = alone()
    before = float(loss(model, one))
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5
    after = float(loss(model, one))
    assert recorder.recorded == 2
    assert after != before
    assert after == pytest.approx(float(problem.loss(model, one)), abs=1e-6)


def test_a_forward_that_cannot_be_recorded_is_launched(
    alone: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line gives the reason, and there is no second attempt; if required, it is an error."""

    def fails(_: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    loss, model, problem, (one, two, _) = alone()
    loss.record = fails
    assert torch.equal(loss(model, one), problem.loss(model, one))
    loss(model, two)
    said = "model.capture: forwards are launched one by one: operation not permitted when stream"
    assert capsys.readouterr().out == f"{said} is capturing\n"
    loss, model, _, (one, *_) = alone(required=True)
    loss.record = fails
    with pytest.raises(UserError, match=r"^model\.capture=true: capturing a forward failed: op"):
        loss(model, one)


REASONS = {
    (): "a CUDA device",
    ("optimizer=adamw",): "only losses of a zeroth-order optimizer",
    ("optimizer.pack=2", "tuning=lora"): "optimizer.pack",
    ("arithmetic=stochastic", "model.dtype=bfloat16"): "arithmetic=stochastic",
    ("optimizer.graph=true",): "optimizer.graph=true",
}


@pytest.mark.parametrize("words", REASONS)
def test_what_cannot_be_captured_is_refused_in_a_sentence(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """If capture is required; otherwise forwards are launched one by one."""
    settings = compose("logger=none", *SIZES, *words)
    made = prepare_run(RunSettings.of(settings), CPU)
    optimizer = build_optimizer(settings["optimizer"], made.trainable, made.model)
    asked = made.problem.loss, made.model, lambda: made.problem.batch([0])
    if words:
        monkeypatch.setattr(captured, "CUDA", "cpu")
    with pytest.raises(UserError, match=f"^model.capture=true: .*{REASONS[words]}.*set it to null"):
        captured.captured(*asked, True, optimizer)
    for wanted in (None, False):
        assert captured.captured(*asked, wanted, optimizer) is None


def test_rows_of_one_length_at_a_time_and_texts_are_not_captured(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often the model is called depends on the rows there."""
    monkeypatch.setattr(captured, "CUDA", "cpu")
    settings = compose("logger=none", *SIZES)
    made = prepare_run(RunSettings.of(settings), CPU)
    asked = made.model, lambda: made.problem.batch([0])
    assert why_not(*asked) is None
    assert "ranks" in str(why_not(*asked, ranks=2))
    problem: Any = made.problem
    problem.encoder.alone = True
    assert "one length at a time" in str(why_not(*asked))
    assert "not tensors" in str(why_not(made.model, lambda: Indices((0,))))


def test_a_loader_hands_on_whether_to_capture() -> None:
    """A field that is null for models that know nothing of it."""
    assert LoadedModel._field_defaults["capture"] is None
    assert LoadedModel(None).capture is None
    assert [field.name for field in fields(Batch)][-2:] == ["choices", "alone"]
