"""The messages for a dollar before a column that begins an interpolation of settings."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from zobench.explain import explained

Compose = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ('task.prompt="{{ text }} costs ${{ text }}"', "task.prompt"),
        ('task.prompt="${text} It was"', "task.prompt: Interpolation key 'text' not found"),
        ('task.prompt="a $${o.k}"', "task.prompt"),
        ('task.prompt="${ text"', "task.prompt"),
        ('task.prompt="${text:x}"', "task.prompt"),
        ("task.prompt=${{text}}", "task.prompt=${{text}}"),
        ("task.choices=[' a',' ${{ x }}']", "task.choices"),
        ("task.content_free='${{x}}'", "task.content_free"),
    ],
)
def test_a_dollar_before_a_brace_has_an_error_with_the_remedy(
    typed: str, names: str, compose: Compose
) -> None:
    """Two lines: the setting, and the backslash that it takes."""
    with pytest.raises(Exception) as caught:
        compose("task=custom", "task.labels=[a,b]", "task.choices=[' a',' b']", typed)
    said = explained(caught.value)
    assert said is not None and said.startswith(names) and len(said.splitlines()) == 2
    assert r"\${{ price }}" in said.splitlines()[1]


def test_other_settings_have_their_own_message(compose: Compose) -> None:
    """The message does not mention columns if there are none."""
    with pytest.raises(Exception) as caught:
        compose("train.batch_size=${nosuch}")
    assert "price" not in (explained(caught.value) or "")


QUOTES = [  # what a shell hands over, and what is meant
    *("model.path=~/x", "task.data_dir=~/r.csv", "task.prompt={{ text }}", "task.data_dir=a#b"),
    *("task.prompt={{ text }} It was", "task.data_dir=/a(b).csv", "task.data_dir=/a/it's.csv"),
    *(
        'task.prompt=a "b" {{ x }}',
        "task.data_dir=a&b",
        "+task.source.encoding=a;b",
        "model.path=x=y",
    ),
]


@pytest.mark.parametrize("typed", QUOTES)
def test_a_setting_that_hydra_cannot_read_is_shown_in_quotes(typed: str) -> None:
    """What the message says to type is read as what was meant, by the shell and by Hydra."""
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides([typed])
    first, second = (explained(caught.value) or "").splitlines()
    assert first.startswith(f"{typed}: not KEY=VALUE")
    (word,) = shlex.split(second.removeprefix("quote it for Hydra and for the shell: "))
    (read,) = OverridesParser.create().parse_overrides([word])
    assert f"{word.split('=')[0]}={read.value()}" == typed


@pytest.mark.parametrize(
    "typed",
    [
        "task.choices=[ a, ~]",
        'task.prompt="{{ t }}',
        "x='a",
        "a",
        "task.x={a:b",
        "x=a(\nb",
        "x=(" * 999,
    ],
)
def test_other_settings_are_not_quoted_for_the_user(typed: str) -> None:
    """A list, a quotation mark that is open, a setting without a value: no guess, two lines."""
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides([typed])
    said = explained(caught.value) or ""
    assert "not KEY=VALUE" in said and "quote it" not in said
    assert len(said.splitlines()) <= 2 and len(said) < 700


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("experiment/e.yaml", 'task: {prompt: "{{ x }} costs ${{ x }}"}', "task.prompt: an inter"),
        ("experiment/e.yaml", "task: {choices: [a, '${{ x }}']}", "task.choices[1]: an inter"),
        ("experiment/e.yaml", "task: {prompt: '${x} a'}", "task.prompt: Interpolation key 'x'"),
        ("experiment/e.yaml", 'task: {prompt: "a \\${{ x }}"}', "e.yaml:2: not valid YAML"),
        ("task/e.yaml", "defaults: [custom]\nprompt: '{{ x }} ${{ x }}'", "prompt: an inter"),
    ],
)
def test_a_dollar_in_a_file_has_an_error_with_the_remedy(
    name: str, text: str, says: str, compose: Compose, tmp_path: Path
) -> None:
    """The setting, or the file and line, and the backslash that it takes."""
    path = tmp_path / name
    path.parent.mkdir()
    head = "# @package _global_\n" if name.startswith("experiment") else ""
    path.write_text(f"{head}{text}\n")
    chosen = ["task=custom", "experiment=e"] if head else ["task=e"]
    where = f"hydra.searchpath=[file://{tmp_path}]"
    with pytest.raises(Exception) as caught:
        compose(*chosen, "task.labels=[a,b]", where)
    said = explained(caught.value) or ""
    assert says in said and len(said.splitlines()) == 2 and r"\${{ price }}" in said
