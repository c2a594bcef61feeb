"""`zobench fits`: what it says of memory is what real steps have, and it allocates nothing."""

import resource
from itertools import chain
from typing import Any

import pytest
import torch

from zobench.bench.fits import GIB, Case, cases_of, need_of
from zobench.bench.memory import MODEL, overrides_of
from zobench.bench.subject import subject_of
from zobench.build import build_optimizer
from zobench.cli import run_command
from zobench.errors import UserError
from zobench.methods import run_settings_of
from zobench.offload.points import OffloadedPoints
from zobench.paths import conf_dir
from zobench.run.closure import CountedLoss, state_bytes
from zobench.run.steps import step_of
from zobench.run.zero_shot import ZeroShot
from zobench.schema import composed
from zobench.zo.optimizer import ZOOptimizer

SMALL: dict[str, Any] = {
    "_target_": "zobench.models.language_model.load",
    "dtype": "bfloat16",
    "weights": "random",
    "architecture": {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 64,
    },
}
ROWS = sorted({path.stem for path in (conf_dir() / "optimizer").iterdir()} - {"forward_gradient"})


def settings_of(row: str, dtype: str = "bfloat16", **train: Any) -> dict[str, Any]:
    settings = dict(run_settings_of(row))
    tuning = {"_target_": "zobench.tuning.full.full", "_partial_": True}
    trained = {**settings["train"], "batch_size": 4, **train}
    return settings | {"model": {**SMALL, "dtype": dtype}, "tuning": tuning, "train": trained}


@pytest.mark.parametrize("row", ROWS)
def test_state_and_weights_are_those_of_real_steps(row: str) -> None:
    """After two steps of every row; in 16 bits with the remainders of weights."""
    dtype = "float32" if row == "adamw_8bit" else "bfloat16"
    settings = settings_of(row, dtype)
    need = need_of(settings, 16)
    node = {"model": settings["model"], "tuning": settings["tuning"]}
    fixed = {"logits": "labels", "batch_size": 4, "tokens": 16, "seed": 0}
    subject = subject_of(node | fixed, torch.device("cpu"))
    weights = {id(p): p.nbytes for p in (*subject.model.parameters(), *subject.model.buffers())}
    assert need.weights == sum(weights.values())
    optimizer = build_optimizer(settings["optimizer"], subject.trainable, subject.model)
    if isinstance(optimizer, ZeroShot):
        assert need.state == 0
        return
    step = step_of(optimizer, CountedLoss(subject.model, subject.loss), lambda _: subject.batch)
    subject.model.train(not isinstance(optimizer, ZOOptimizer))
    for _ in range(2):
        step(subject.batch)
    assert state_bytes(optimizer) == need.state
    assert need.peak >= need.weights + need.state


def test_a_peak_grows_with_what_it_is_made_of() -> None:
    """Tokens, batch and state; less with micro-batches, with checkpoints, and without gradients."""
    usual = need_of(settings_of("adamw", batch_size=16), 48)
    assert need_of(settings_of("adamw", batch_size=16), 24).rest < usual.rest
    assert need_of(settings_of("adamw", batch_size=8), 48).rest < usual.rest
    in_parts = need_of(settings_of("adamw", batch_size=16, micro_batch_size=4), 48)
    assert in_parts.peak < usual.peak and in_parts.state == usual.state
    assert need_of(settings_of("adamw", batch_size=16, checkpointing=True), 48).peak < usual.peak
    assert need_of(settings_of("lomo", batch_size=16), 48).peak < usual.peak
    assert need_of(settings_of("mezo", batch_size=16), 48).peak < usual.peak


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_weights_are_as_small_as_they_are(kind: str) -> None:
    """Bytes of real ones, with the tables that bitsandbytes keeps for each, a few KB."""
    architecture = SMALL["architecture"] | {"hidden_size": 128, "ffn_dim": 256}
    model = SMALL | {"architecture": architecture | {"word_embed_proj_dim": 128}}
    settings = settings_of("mezo") | {"model": model | {"quantization": kind}}
    settings["tuning"] = {"_target_": "zobench.tuning.lora.lora", "_partial_": True, "seed": 0}
    need = need_of(settings, 16)
    fixed = {"logits": "labels", "batch_size": 4, "tokens": 16, "seed": 0}
    parts = {"model": settings["model"], "tuning": settings["tuning"]}
    real = subject_of(parts | fixed, torch.device("cpu")).model

    def size(p: Any) -> float:
        if kind == "int8" and hasattr(p, "qdata"):
            return float(p.qdata.nbytes + p.scale.nbytes)
        state = getattr(p, "quant_state", None)
        return p.nbytes + (state.absmax.nbytes + state.state2.absmax.nbytes if state else 0)

    tensors = {id(t): t for t in (*real.parameters(), *real.buffers())}
    assert need.weights == pytest.approx(sum(map(size, tensors.values())), rel=0.01)


def test_nothing_is_allocated() -> None:
    """Weights of 16 GiB, and the state of AdamW, take no memory here."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [case] = cases_of(["model=llama3_8b", "model.architecture.num_hidden_layers=4", "tokens=128"])
    assert isinstance(case, Case) and case.tokens == 128
    need = Case({**case.overrides, "optimizer": "adamw"}, 128).need(gpu=True)
    assert need.weights > 3 * GIB and need.state == pytest.approx(3 * need.weights, rel=0.01)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 0.5 * GIB


def test_what_does_not_fit_is_told_how_it_would(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and changes with the peaks that they lead to."""
    sizes = ["model.architecture.num_hidden_layers=4", "train.batch_size=8", "tokens=256"]
    command = ["fits", "model=llama3_8b", *sizes, "optimizer=adamw,mezo", "--gpu", "9"]
    assert run_command(command) == 1
    *_, adamw, mezo = capsys.readouterr().out.splitlines()
    assert "| adamw |" in adamw and "does not fit; fits with optimizer=lomo" in adamw
    assert "| mezo |" in mezo and mezo.endswith("| fits |")
    assert run_command(["fits", "model=opt_125m", "tuning=lora", "--gpu", "8"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model=linear", "task=a9a"], "error: fits: choose a language model"),
        (["tokens=many"], "error: tokens=many: give a number"),
        (["model=opt_125m", "optimizer=forward_gradient"], "error: fits: forward-mode"),
        (["model=opt_125m", "tokens=5000"], "error: tokens=5000: the model takes 2048 at most"),
        (["model=hf", "model.path=some/hub_id"], "error: model.weights=random: give model."),
        (["optimizer=nope"], "error: "),
        (["optimizer=[mezo"], "error: "),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with exit status 1."""
    assert run_command(["fits", *arguments]) == 1
    message = capsys.readouterr().err
    assert message.startswith(says) and len(message.splitlines()) <= 2


def test_rows_of_the_bench_are_runs() -> None:
    """`adamw tuning=lora` is an optimizer and other overrides."""
    settings = composed(*overrides_of("adamw tuning=lora", MODEL, 2))
    assert settings["train"]["batch_size"] == 2
    assert need_of(settings, 8).weights > 58e6 * 4
    with pytest.raises(UserError, match="choose a language model"):
        need_of(settings | {"model": {"_target_": "zobench.models.linear.load"}}, 8)


def test_with_layers_in_main_memory_it_counts_what_the_device_holds() -> None:
    """Three layers of 24 in flight, and what is outside of them: the tensors of a real step."""
    settings = settings_of("mezo")
    deep = SMALL | {
        "offload": "cpu",
        "architecture": {**SMALL["architecture"], "num_hidden_layers": 24},
    }
    need = need_of(settings | {"model": deep}, 16)
    fixed = {"logits": "labels", "batch_size": 4, "tokens": 16, "seed": 0}
    node = {"model": deep, "tuning": settings["tuning"]}
    subject = subject_of(node | fixed, torch.device("cpu"))
    optimizer = build_optimizer(settings["optimizer"], subject.trainable, subject.model)
    assert isinstance(optimizer, ZOOptimizer) and subject.offload is not None
    points = OffloadedPoints(subject.offload, optimizer.engine)
    flying = [*chain(*subject.offload.uploads.copies), *(t for own in points._more for t, _ in own)]
    memories = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in flying}
    layers = {id(t) for b in subject.offload.blocks for t in (*b.parameters(), *b.buffers())}
    everything = (*subject.model.parameters(), *subject.model.buffers())
    outside = sum(t.nbytes for t in everything if id(t) not in layers)
    # bfloat16: a remainder is as large as its weight; two copies of both, and two points
    assert need.weights == sum(memories.values()) + 6 * outside
    plain = need_of(settings | {"model": {**deep, "offload": None}}, 16)
    assert need.peak < plain.peak / 2
    assert need.rest == plain.rest + 4 * 16 * 32 * 2  # a hidden state waits
