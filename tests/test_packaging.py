"""What is installed is what is in the checkout: code, configs and the tiny model."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from zobench.paths import ASSETS_DIR, PACKAGE_DIR, conf_dir

ROOT = PACKAGE_DIR.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, unpacked somewhere else."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not a checkout: there is nothing to build a wheel from")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    assert wheel.stat().st_size < 2_000_000
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_config_and_asset(installed: Path) -> None:
    """conf/ ships as zobench/conf, and the tiny checkpoint is complete."""
    published = PACKAGE_DIR / "published"
    page = PACKAGE_DIR / "report" / "page" / "assets"
    shipped = (
        (conf_dir(), "conf"),
        (ASSETS_DIR, "assets"),
        (published, "published"),
        (page, "report/page/assets"),
    )
    for source, target in shipped:
        ours = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
        there = installed / "zobench" / target
        theirs = {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()}
        assert ours == theirs and ours
    assert not (installed / "conf").exists()


def test_the_wheel_composes_its_own_configs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """From another folder, with nothing of the checkout in sight, the default run composes."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import zobench.cli; zobench.cli.main()"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code, "run", "--cfg", "job"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "path: zobench:tiny" in answer.stdout
    assert "lr: 0.0001" in answer.stdout  # of a row of a table
    place = "from zobench import paths; print(paths.conf_dir())"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", place],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(answer.stdout.strip()) == installed / "zobench" / "conf"
