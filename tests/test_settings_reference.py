"""`zobench settings` and its page: all settings, from the schema's source."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pages import DOCS
from zobench.schema import Config
from zobench.settings_reference import GROUP, sections, settings, users
from zobench.why import leaves

Command = Callable[..., tuple[int, str, str]]


def test_all_settings_are_there_with_their_defaults(compose: Callable[..., dict[str, Any]]) -> None:
    """As many as the schema has, and the values of a run in which nothing is set."""
    found = {one.key: one for one in settings()}
    plain = leaves({k: v for k, v in compose().items() if k in sections() or k == "seed"})
    del plain["budget.steps"]  # computed
    missing = {key for key in plain if key.rpartition(".")[0] in sections()} - {*found}
    assert not missing
    for key, value in plain.items():
        plainly = value is None or isinstance(value, bool)
        shown = json.dumps(value) if plainly else str(value)
        if not key.startswith("published."):
            assert found[key].default == shown, key
    assert {key.partition(".")[0] for key in found} == {*Config.__dataclass_fields__}


@pytest.mark.parametrize("one", settings(), ids=lambda one: one.key)
def test_each_setting_has_a_text_and_a_reader(one: Any) -> None:
    """A comment after its field, and a file of the package that mentions it."""
    assert one.text and one.kind
    assert one.kind == GROUP or users(one.key), f"{one.key}: nothing reads it"


def test_units_are_those_of_the_texts() -> None:
    """What a number counts; a text, a flag and a share have none."""
    units = {one.key: one.unit for one in settings()}
    assert units["train.eval_every"] == units["checkpoint.steps"] == "steps"
    assert units["budget.forwards"] == "forwards" and units["train.patience"] == "evaluations"
    assert units["checkpoint.minutes"] == "minutes" and units["train.batch_size"] == "examples"
    assert units["train.final_lr"] == units["table.target"] == units["train.select"] == ""


def test_a_pattern_selects(command: Command) -> None:
    """By name or text, with the files that mention it; none is an error of one line."""
    status, out, _ = command("settings", "eval_every")
    assert status == 0 and "train.eval_every=200  (int, steps)\n    steps between" in out
    assert "run/loop.py" in out and "checkpoint" not in out
    assert command("settings")[1].count("\n    ") >= len(settings())
    for pattern, said in (("nonsense", "zobench why nonsense"), ("(", "not a regular expression")):
        status, _, err = command("settings", pattern)
        assert status == 1 and said in err and len(err.splitlines()) == 1


def test_it_does_not_import_torch() -> None:
    """So that it answers at once."""
    code = "import sys, zobench.settings_reference as r; r.main([]); print('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.endswith("\nFalse\n")


def test_the_page_has_all_of_it() -> None:
    """A line for each setting, and a place in the navigation."""
    path = DOCS / "hooks" / "settings_page.py"
    if not path.is_file():
        pytest.skip("not a checkout: docs are not here")
    spec = importlib.util.spec_from_file_location("settings_page", path)
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.page()
    for one in settings():
        assert page.count(f"\n| `{one.key}` | ") == 1
    for name in sections():
        assert f"\n## {name}\n" in page
    config = hook.on_config(SimpleNamespace(nav=[{"Reference": [{"x": "x.md"}]}]))
    assert config.nav == [{"Reference": [{"Settings": hook.PLACE}, {"x": "x.md"}]}]
