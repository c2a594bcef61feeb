"""A dollar before a column: what is said of it where it begins an interpolation of settings."""

from collections.abc import Callable
from typing import Any

import pytest

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
def test_a_dollar_before_a_brace_is_told_how_to_write(
    typed: str, names: str, compose: Compose
) -> None:
    """Two lines: the setting, and the backslash that it takes."""
    with pytest.raises(Exception) as caught:
        compose("task=custom", "task.labels=[a,b]", "task.choices=[' a',' b']", typed)
    said = explained(caught.value)
    assert said is not None and said.startswith(names) and len(said.splitlines()) == 2
    assert r"\${{ price }}" in said.splitlines()[1]


def test_other_settings_have_their_own_message(compose: Compose) -> None:
    """Nothing is said of columns where there are none."""
    with pytest.raises(Exception) as caught:
        compose("train.batch_size=${nosuch}")
    assert "price" not in (explained(caught.value) or "")
