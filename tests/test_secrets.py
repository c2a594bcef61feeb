"""Secrets are refused in settings, and are in no file and no line that a run leaves."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.launch.__main__ import main
from zobench.run.folder import RunFolder, read_json
from zobench.secret import Redacted, redacted, refuse_in_arguments, refuse_secrets

Command = Callable[..., tuple[int, str, str]]
WANDB, HUB, MINE = "0123456789" + "abcdef" * 5, "hf_" + "Xy1" * 10, "correct horse battery"
ENVIRONMENT = {"WANDB_API_KEY": WANDB, "HF_TOKEN": HUB, "MY_PASSWORD": MINE}


@pytest.mark.parametrize("planted", [WANDB, HUB, MINE, "ghp_" + "a1" * 12, "sk-" + "b2" * 12])
@pytest.mark.parametrize("key", ["task.data_dir", "tuning.deep.0.name", "logger.api_key"])
def test_a_secret_in_the_settings_is_refused_by_its_key_alone(
    key: str, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a value, whole or inside a longer text; the message does not repeat it."""
    monkeypatch.setenv("MY_PASSWORD", MINE)
    group, _, name = key.partition(".")
    node = {"deep": [{"name": planted}]} if "deep" in key else {name: f"x/{planted}"}
    for call in (
        lambda: refuse_secrets({group: node}),
        lambda: refuse_in_arguments(["seed=1", f"+{key}={planted}"]),
    ):
        with pytest.raises(UserError, match=rf"^{key}: looks like a secret") as caught:
            call()
        assert planted not in str(caught.value)


def test_what_only_resembles_a_secret_is_a_setting() -> None:
    """Commits, counts of tokens, short words, and what is null."""
    model = {"revision": WANDB, "api_key": None, "tokens": 5, "eos_token": "</s>"}
    refuse_secrets({"model": model})
    refuse_in_arguments(["model.revision=" + WANDB, "task.max_new_tokens=50", "-m", "--cfg"])


@pytest.mark.parametrize("sweep", [False, True])
def test_a_refused_command_leaves_nothing(command: Command, tmp_path: Path, sweep: bool) -> None:
    """Neither on the command line nor in a file of `--config-dir` does a secret get anywhere."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    overlay = tmp_path / "mine" / "experiment" / "leak.yaml"
    overlay.write_text(f"# @package _global_\npublished:\n  paper: {HUB}\n")
    for given in (
        [f"published.paper={HUB}"],
        ["--config-dir", str(tmp_path / "mine"), "experiment=leak"],
    ):
        status, out, err = command(*(["-m"] if sweep else []), *given)
        assert status == 1 and HUB not in out + err
        assert "published.paper: looks like a secret" in err
        files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
        assert not any(HUB in path.read_text() for path in files)


def test_a_failure_is_written_without_the_secrets_in_it(
    compose: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """failure.json has the reason, blacked out; what is printed goes the same way."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    folder = RunFolder(tmp_path / "run")
    settings = compose("task=quadratic_columns", f"runs_root={tmp_path}", "budget.steps=1")
    logger = {"_target_": "tests.run.leaky.Leaky"}
    meta = {"name": "run", "choices": {}}
    folder.begin(settings | {"logger": logger}, meta)
    monkeypatch.setattr(sys, "stderr", Redacted(sys.stderr))
    assert main([str(folder.path)]) == 1
    written = folder.failure.read_text() + capfd.readouterr().err
    assert "could not log in with" in written and written.count("[secret]") >= 9
    assert not [secret for secret in ENVIRONMENT.values() if secret in written]


@pytest.mark.faults
def test_the_environments_secrets_are_in_no_file_of_a_run(tmp_path: Path) -> None:
    """Two runs: one mirrored to W&B offline, one that fails with them in its message and prints."""
    environment = (
        os.environ | ENVIRONMENT | {"ZOBENCH_RUNS": str(tmp_path), "WANDB_MODE": "offline"}
    )
    command = [sys.executable, "-c", "from zobench.cli import main; main()"]
    small = ("budget.steps=2", "task.sizes.train=16", "task.sizes.dev=8", "task.sizes.test=8")
    said = ""
    for logger in ((), ("logger._target_=tests.run.leaky.Leaky",)):
        extra = ("logger=none", "suite=leaky", *logger) if logger else ("logger=wandb",)
        done = subprocess.run(
            [*command, *small, *extra], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == bool(logger), done.stderr
        said += done.stdout + done.stderr
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".wandb" for path in files)
    for secret in ENVIRONMENT.values():
        assert secret not in said
        assert not [path for path, data in files.items() if secret.encode() in data]
    (failure,) = tmp_path.glob("leaky/*/failure.json")
    assert "could not log in with" in read_json(failure)["reason"]
    assert failure.with_name("stderr.log").read_text().count("[secret]") >= 6


def test_redaction_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the secret goes; a short value of a variable is none."""
    monkeypatch.setenv("MY_PASSWORD", "abc")
    assert redacted(f"user abc, key {HUB}, done") == "user abc, key [secret], done"
