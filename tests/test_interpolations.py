"""Settings are resolved once: no interpolation, live or escaped, reaches what builds objects."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from zobench.build import build, check
from zobench.cli import run_command
from zobench.errors import UserError
from zobench.schema import resolved

NODE = "{_target_:os.mkdir,path:%s}"
LIVE = (
    "${oc.create:" + NODE + "}",
    "a ${oc.env:HOME} b",
    "${oc.decode:" + NODE + "}",
    '${oc.create:${oc.decode:"' + NODE + '"}}',
    "${ oc.env:HOME}",
    "${seed}",
    "${.lr}",
    "${..x}",
    "${[task]}",
    "${${seed}}",
    "x$${oc.env:HOME}",
)
NONE = ("costs ${{ text }}", "a $ b", "{x}", "$x", "${", "$ {seed}", '{{ "$" }}{HOME}')


def texts(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a tree has texts."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from texts(value, (*path, name))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from texts(value, (*path, place))
    elif isinstance(node, str):
        yield path


def put(node: Any, path: tuple[Any, ...], text: str) -> None:
    """Put the text where the path ends."""
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = text


@pytest.fixture(scope="module")
def settings(compose: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A run's settings that have a text wherever one can be, as far as one task has them."""
    return compose(
        "task=custom", "task.prompt='{{ x }}'", "task.choices=[a,b]", "task.labels=[c,d]"
    )


def test_every_text_of_every_setting_is_looked_at(settings: dict[str, Any]) -> None:
    """The check before a run, and what builds the part of a run folder, name the setting."""
    plain = json.dumps(settings)
    places = list(texts(settings))
    assert len(places) > 20
    for number, place in enumerate(places):
        for text in (LIVE[number % len(LIVE)], LIVE[0], "\\" + LIVE[1]):
            spoiled = json.loads(plain)
            put(spoiled, place, text)
            with pytest.raises(UserError) as caught:
                check(spoiled)
            target = place[-1] == "_target_"
            assert target or ".".join(map(str, place)) in str(caught.value)
            if "_target_" in spoiled[place[0]]:
                with pytest.raises(UserError):
                    build(spoiled[place[0]], place[0])


@pytest.mark.parametrize("text", LIVE)
def test_a_text_is_refused_and_nothing_called(text: str, tmp_path: Path) -> None:
    """Whatever the form; before anything is made of the settings."""
    made = tmp_path / "made"
    held = text.replace("%s", str(made))
    with pytest.raises(UserError, match=r"^part\.a\.0: holds the interpolation"):
        check({"part": {"a": [held]}})
    with pytest.raises(UserError, match="holds the interpolation"):
        build({"_target_": "zobench.tasks.templates.Template", "text": held, "key": "x"})
    assert not made.exists()


@pytest.mark.parametrize("text", NONE)
def test_other_dollars_are_texts(text: str) -> None:
    """They arrive as they stand."""
    check({"part": {"a": text}})
    row = build({"_target_": "zobench.tasks.example.Row", "values": {"a": text}, "where": text})
    assert (row.values, row.where) == ({"a": text}, text)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_escapes_of_any_depth_in_overrides(
    depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """One is resolved when settings are composed, which makes no object; the rest is refused."""
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path / "runs"))
    made = tmp_path / "made"
    text = "\\" * (2**depth - 1) + LIVE[0].replace("%s", str(made))
    status = run_command([f'task.content_free="{text}"', "logger=none", "budget.steps=1"])
    told = capsys.readouterr().err
    assert status == 1
    assert "crash" not in told
    assert "Traceback" not in told
    assert not made.exists()


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_a_run_folder_from_elsewhere_calls_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Live and escaped forms in config.yaml, wherever texts stand there."""
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path / "runs"))
    assert run_command(["logger=none", "budget.steps=2", "suite=s"]) == 0
    (folder,) = (tmp_path / "runs" / "s").iterdir()
    capsys.readouterr()
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    made = tmp_path / "made"
    for part in ("task", "model", "tuning", "optimizer"):
        place = next(texts(kept[part]))
        for text in (LIVE[0], "\\" + LIVE[0], LIVE[3]):
            spoiled = json.loads(json.dumps(kept))
            put(spoiled[part], place, text.replace("%s", str(made)))
            (folder / "config.yaml").write_text(yaml.safe_dump(spoiled))
            assert run_command([command, str(folder)]) == 1
            told = capsys.readouterr().err
            assert told.startswith("error: ")
            assert told.count("\n") <= 2
            assert not made.exists()


def test_resolving_makes_no_object_of_an_overlay(tmp_path: Path) -> None:
    """`oc.create` leaves a node of plain data, which the check sees."""
    from omegaconf import OmegaConf

    from zobench.schema import Config

    made = tmp_path / "made"
    config = OmegaConf.structured(Config)
    for part in ("model", "tuning", "task", "logger", "optimizer"):
        config[part] = {"x": 1}
    config.runs_root = "r"
    config.model = {"x": LIVE[0].replace("%s", str(made))}
    settings = resolved(config)
    assert settings["model"]["x"]["_target_"] == "os.mkdir"
    with pytest.raises(UserError, match=r"model\.x\._target_=os\.mkdir"):
        check(settings)
    assert not made.exists()
