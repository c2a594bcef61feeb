"""Runs with layers in main memory: the files of plain runs, also after a kill; what is refused."""

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.attempts import Attempts
from zobench.build import build_optimizer, try_optimizer
from zobench.errors import UserError
from zobench.launch.process import ForkServer
from zobench.models.language_model import load
from zobench.run.closure import check_offload
from zobench.run.ranks.agreed import check_ranks
from zobench.settings import RunSettings, identity

Compose = Callable[..., dict[str, Any]]
SMALL = {
    "model_type": "opt",
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 50,
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_has_the_bits_of_a_plain_one(
    server: ForkServer, compose: Compose, tmp_path: Path, dtype: str
) -> None:
    """Ledger, weights, predictions, metrics and result; and so has one that was killed."""
    own = ("optimizer=mezo", f"model.dtype={dtype}", "++model.offload=cpu")
    attempts = Attempts(server, compose, tmp_path, *own)
    attempts.count()
    plain = {k: v for k, v in attempts.settings["model"].items() if k != "offload"}
    assert attempts.attempt("plain", model=plain) == 0
    attempts.check("plain")
    drawn = random.Random(dtype).randrange(attempts.instants // 3, attempts.instants)
    attempts.survive([drawn])
    last = attempts.instants * 2 // 3
    assert attempts.killed("moved", last) == -signal.SIGKILL
    assert attempts.attempt("moved", model=plain) == 0  # a run may go on with the other setting
    attempts.check("moved")


def test_the_id_is_that_of_the_plain_run(compose: Compose) -> None:
    """Where weights are changes no number, so it does not name the run."""
    plain = compose("model=opt_125m")
    assert identity(compose("model=opt_125m", "model.offload=cpu")) == identity(plain)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("optimizer=loren", "sampler .* does not draw plain noise"),
        ("optimizer=lozo", "sampler .* does not draw plain noise"),
        ("optimizer=mezo sampler.law=normal", "other bits on a GPU"),
        ("optimizer=adamw", "not a zeroth-order one"),
        ("optimizer=mezo arithmetic=stochastic", "displaces copies of modules"),
        ("optimizer=mezo optimizer.pack=2", "optimizer.pack evaluate in their own way"),
        ("optimizer=mezo optimizer.graph=true", "optimizer.graph and"),
        ("optimizer=mezo train.micro_batch_size=2", "for each part of a batch"),
        ("optimizer=mezo train.nonfinite=skip", "needs each loss before"),
        ("optimizer=mezo diagnose.every=5", "back-propagates"),
        ("optimizer=mezo pack_runs=2", "pack_runs evaluates runs in one call"),
    ],
)
def test_what_cannot_be_offloaded_is_refused_before_a_model_is_loaded(
    compose: Compose, overrides: str, reason: str
) -> None:
    """In one sentence that names the key."""
    settings = RunSettings.of(compose("model.offload=cpu", "model=opt_125m", *overrides.split()))
    with pytest.raises(UserError, match=rf"model.offload=cpu: .*{reason}.*; set it to null"):
        check_offload(settings, try_optimizer(settings.optimizer))


@pytest.mark.parametrize("optimizer", ["mezo", "zero_shot", "mezo sampler=rademacher", "mezo_adam"])
def test_what_can_be_offloaded(compose: Compose, optimizer: str) -> None:
    """Plain noise, any rule; and evaluation alone."""
    overrides = f"model=opt_125m model.offload=cpu optimizer={optimizer}".split()
    settings = RunSettings.of(compose(*overrides))
    check_offload(settings, try_optimizer(settings.optimizer))


def test_ranks_and_other_placements_are_refused(compose: Compose) -> None:
    """Each rank has a whole model; a map and quantised layers have places of their own."""
    settings = compose("model=opt_125m", "model.offload=cpu", "optimizer=mezo")
    made = load(weights="random", architecture=SMALL, offload="cpu")
    assert made.offload is not None and len(made.offload.blocks) == 3
    optimizer = build_optimizer(settings["optimizer"], made.model.named_parameters())
    with pytest.raises(UserError, match="under torchrun each rank has a whole model"):
        check_ranks(settings["model"], optimizer)
    others: list[dict[str, Any]] = [{"device_map": "auto"}, {"quantization": "nf4"}]
    for other in others:
        with pytest.raises(UserError, match=r"leave model.device_map and model.quantization null"):
            load(weights="random", architecture=SMALL, offload="cpu", **other)
    with pytest.raises(UserError, match=r"model.offload=disk: choose cpu or null"):
        load(weights="random", architecture=SMALL, offload="disk")
