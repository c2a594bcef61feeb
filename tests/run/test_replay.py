"""`zobench replay` and `zobench verify`: weights without data, and results that can be checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.runner import run

Compose = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
SMALL = (
    *("task.sizes.train=48", "task.sizes.dev=16", "task.sizes.test=16", "train.batch_size=8"),
    *("budget.steps=10", "train.eval_every=4", "train.log_every=2", "threads=1", "logger=none"),
)


@pytest.fixture
def finished(
    compose: Compose, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., RunFolder]:
    """`finished("optimizer=adamw")`: the folder of a run that has its result."""

    def folder_of(*overrides: str, at: str = "run") -> RunFolder:
        folder = RunFolder(tmp_path / at)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        folder.begin(compose(*SMALL, f"runs_root={tmp_path}", *overrides), meta)
        run(folder)
        capfd.readouterr()
        return folder

    return folder_of


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=conmezo", "seed=7"),
        ("optimizer=ldsd_adamm", "model.dtype=bfloat16"),
        ("optimizer=loren", "optimizer.pack=2"),
        ("optimizer=curvzo", "tuning=lora"),
        ("optimizer=forward_gradient",),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_replay_saves_the_last_weights_and_verify_finds_nothing(
    finished: Callable[..., RunFolder],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
) -> None:
    """Without a task: the folder that Hugging Face loads has the run's last weights' bits."""
    folder = finished(*overrides, "train.select=last")
    status, out, err = command("verify", str(folder.path))
    assert (status, err) == (0, "")
    assert "as in result.json (10 steps replayed)" in out
    with monkeypatch.context() as patch:
        patch.setattr("zobench.tasks.choice.ChoiceTask.prepare", None)
        status, out, err = command("replay", str(folder.path))
    assert (status, err) == (0, "")
    assert "the same bits as best.safetensors" in out
    made = folder.path / "step-10"
    kept = load_file(folder.weights)
    if "lora" in str(overrides):
        assert (made / "adapter_model.safetensors").is_file()
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(made, dtype="auto")
    AutoTokenizer.from_pretrained(made)
    mine = dict(model.named_parameters())
    assert all(torch.equal(mine[name], kept[name]) for name in kept)


def test_any_step_can_be_rebuilt(finished: Callable[..., RunFolder], command: Command) -> None:
    """`--step N` gives the weights of a run that ended there; a step it never took is refused."""
    folder = finished("optimizer=mezo_adam", "train.select=last")
    shorter = finished("optimizer=mezo_adam", "train.select=last", "budget.steps=7", at="short")
    out = folder.path.parent / "seven"
    assert command("replay", str(folder.path), "--step", "7", "--out", str(out))[0] == 0
    kept = load_file(shorter.weights)
    made = load_file(out / "model.safetensors")
    assert all(torch.equal(made[name], kept[name]) for name in made.keys() & kept.keys())
    for wanted, message in (("11", "steps 0 to 10"), ("7", "exists already")):
        status, _, err = command("replay", str(folder.path), "--step", wanted, "--out", str(out))
        assert status == 1 and message in err and err.count("\n") <= 2
    ledger = folder.ledger.read_bytes()
    folder.ledger.write_bytes(ledger[:-40])
    status, out_text, _ = command("replay", str(folder.path))
    assert status == 0 and "cut off in the entry" in out_text
    folder.ledger.unlink()
    status, _, err = command("replay", str(folder.path))
    assert status == 1 and "ledger.bin" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        ("adamw", "AdamW is not a zeroth-order optimizer"),
        ("agzo", "ActivationBasis draws from the activations"),
        ("zero_shot", "ZeroShot takes no steps"),
        ("linear_probe tuning=head", "LinearProbe takes no steps"),
    ],
)
def test_what_cannot_be_replayed_says_why(
    finished: Callable[..., RunFolder], command: Command, optimizer: str, reason: str
) -> None:
    """In one sentence, with status 1; its result is verified with the weights that were kept."""
    folder = finished(*f"optimizer={optimizer}".split())
    status, _, err = command("replay", str(folder.path), "--step", "best")
    assert status == 1 and reason in err and err.count("\n") == 1
    status, out, _ = command("verify", str(folder.path))
    assert status == 0 and "as in result.json" in out, out


def test_verify_has_a_line_for_every_difference(
    finished: Callable[..., RunFolder], command: Command
) -> None:
    """A changed number, prediction, weight or ledger entry is named, and the exit status is 1."""
    folder = finished("optimizer=mezo", "optimizer.lr=1e-3")
    result = read_json(folder.result)
    changed = json.loads(json.dumps(result))
    changed["test"]["accuracy"] += 0.01
    changed["cost"]["forwards"] += 2
    write_json(folder.result, changed)
    status, out, _ = command("verify", str(folder.path))
    lines = out.splitlines()
    assert status == 1
    assert [line.split(":")[0] for line in lines[:-1]] == ["cost/forwards", "test/accuracy"]
    assert "2 differences" in lines[-1]
    assert command("verify", str(folder.path), "--tolerance", "0.2")[0] == 0
    write_json(folder.result, result)
    weights = load_file(folder.weights)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1.0
    save_file(weights, folder.weights, metadata={"step": str(result["best_step"])})
    status, out, _ = command("verify", str(folder.path))
    assert status == 1 and out.startswith(f"best.safetensors: {name}")
    status, _, err = command("replay", str(folder.path), "--step", "best")
    assert status == 1 and name in err
    folder.ledger.write_bytes(folder.ledger.read_bytes()[:-60])
    status, out, _ = command("verify", str(folder.path))
    assert status == 1 and "cut off" in out and "\nsteps: 10 in result.json, " in out


def test_other_base_weights_and_another_law_are_refused(
    finished: Callable[..., RunFolder], command: Command
) -> None:
    """A base that is not the run's, or settings that draw other noise, never pass for the run."""
    folder = finished("optimizer=mezo")
    text = folder.config.read_text()
    folder.config.write_text(text.replace("law: normal16", "law: normal"))
    status, _, err = command("replay", str(folder.path))
    assert status == 1 and "the weights are not the run's" in err
    folder.config.write_text(text)
    meta = read_json(folder.meta)
    write_json(folder.meta, meta | {"base": "f" * 64})
    status, _, err = command("replay", str(folder.path))
    assert status == 1 and err.startswith("error: model: the weights before training")
    status, _, err = command("verify", str(folder.path.parent))
    assert status == 1 and "no result.json" in err


SPOILED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no task": lambda settings: settings.pop("task"),
    "a list": lambda settings: settings.update(model=[]),
    "a text": lambda settings: settings.update(task="x"),
    "no batch": lambda settings: settings["evaluation"].update(batch_size=0),
    "threads": lambda settings: settings.update(threads="x"),
    "a seed": lambda settings: settings.update(seed="0"),
    "a home": lambda settings: settings["model"].update(path="~nobody_of_that_name/m"),
}


def test_settings_that_no_run_could_have_are_named(
    finished: Callable[..., RunFolder], command: Command
) -> None:
    """Whatever has written to config.yaml: one line, from replay and from verify."""
    folder = finished("optimizer=mezo")
    whole = folder.config.read_text()
    for spoil in SPOILED.values():
        settings = yaml.safe_load(whole)
        spoil(settings)
        folder.config.write_text(yaml.safe_dump(settings))
        for name in ("replay", "verify"):
            status, _, err = command(name, str(folder.path))
            assert status == 1 and err.startswith("error: ") and err.count("\n") == 1, err
    for text in (whole + "a: &a [*a]\n", "[" * 3000, "x: 1", ""):
        folder.config.write_text(text)
        assert "damaged" in command("verify", str(folder.path))[2]
