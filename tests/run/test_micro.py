"""A batch in parts is the same batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zobench.run.folder import RunFolder
from zobench.run.runner import run
from zobench.zo.ledger import read

SIZES = ("task.sizes.train=48", "task.sizes.dev=16", "task.sizes.test=16", "budget.steps=4")


@pytest.fixture
def carry_out(compose: Callable[..., dict[str, Any]], tmp_path: Any) -> Callable[..., RunFolder]:
    """`carry_out("optimizer=mezo")`: the folder of a run of four steps."""

    def carry_out(*overrides: str) -> RunFolder:
        folder = RunFolder(tmp_path / str(len(list(tmp_path.iterdir()))))
        settings = compose("logger=none", *SIZES, "train.log_every=1", "threads=1", *overrides)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
        folder.begin(settings, meta)
        run(folder)
        return folder

    return carry_out


@pytest.mark.parametrize("loss", ["choice", "answer", "sequence"])
@pytest.mark.parametrize("part", [1, 5, 16])
def test_zeroth_order_losses_are_those_of_the_whole_batch(
    carry_out: Callable[..., RunFolder], loss: str, part: int
) -> None:
    """Both losses of each step agree, and the forwards count whole batches."""
    options = ("optimizer=mezo", "optimizer.lr=1e-7", f"task.loss={loss}")
    whole = carry_out(*options)
    parts = carry_out(*options, f"train.micro_batch_size={part}")
    for one, other in zip(read(whole.ledger), read(parts.ledger), strict=True):
        assert list(other.losses) == pytest.approx(list(one.losses), abs=2e-6)
    numbers = [result_of(folder)["cost"] for folder in (whole, parts)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("loss", ["choice", "answer"])
def test_first_order_gradients_are_those_of_the_whole_batch(
    carry_out: Callable[..., RunFolder], loss: str
) -> None:
    """Four steps of SGD end at the same weights."""
    from safetensors.torch import load_file

    options = ("optimizer=sgd", "optimizer.lr=0.05", f"task.loss={loss}", "train.eval_every=4")
    whole = load_file(carry_out(*options).weights)
    parts = load_file(carry_out(*options, "train.micro_batch_size=3").weights)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-5)


def test_arithmetic_in_bfloat16_leaves_the_weights_in_float32(
    carry_out: Callable[..., RunFolder],
) -> None:
    """Autocast changes the loss a little and no dtype."""
    from safetensors.torch import load_file

    plain = carry_out("optimizer=adamw", "optimizer.lr=1e-4")
    mixed = carry_out("optimizer=adamw", "optimizer.lr=1e-4", "train.precision=bfloat16")
    one, other = (result_of(folder)["train"]["loss"] for folder in (plain, mixed))
    assert one != other
    assert one == pytest.approx(other, rel=0.05)
    assert all(w.dtype == torch.float32 for w in load_file(mixed.weights).values())


def test_checkpointing_changes_no_number(carry_out: Callable[..., RunFolder]) -> None:
    """Recomputed activations are the same activations."""
    plain = carry_out("optimizer=sgd", "train.grad_clip=1.0")
    again = carry_out("optimizer=sgd", "train.grad_clip=1.0", "train.checkpointing=true")
    assert result_of(plain)["train"]["loss"] == pytest.approx(result_of(again)["train"]["loss"])


def test_the_rate_warms_up(carry_out: Callable[..., RunFolder]) -> None:
    """Linearly from above 0, reaching the full rate after `warmup` steps."""
    folder = carry_out("optimizer=mezo", "optimizer.lr=8e-6", "train.warmup=3")
    assert [r.lr for r in read(folder.ledger)] == pytest.approx([2e-6, 4e-6, 6e-6, 8e-6])


def test_an_exported_model_loads_elsewhere(carry_out: Callable[..., RunFolder]) -> None:
    """`train.export` leaves the selected weights as a Hugging Face folder."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = carry_out("optimizer=adamw", "train.export=true", "train.eval_every=2")
    model = AutoModelForCausalLM.from_pretrained(folder.model)
    kept = load_file(folder.weights)
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters())
    assert AutoTokenizer.from_pretrained(folder.model).pad_token_id is not None


def result_of(folder: RunFolder) -> dict[str, Any]:
    """What result.json holds."""
    from zobench.run.folder import read_json

    return read_json(folder.result)
