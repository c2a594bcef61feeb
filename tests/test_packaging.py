"""What is installed is what is in the checkout: code, configs and the tiny model."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zobench.paths import PACKAGE_DIR, conf_dir

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
    """All files of the package, templates and the tiny checkpoint among them; conf/ beside them."""
    there = installed / "zobench"
    ours = {*files_in(PACKAGE_DIR), *(Path("conf") / path for path in files_in(conf_dir()))}
    assert {*files_in(there)} == ours - {Path("conf.py")} and Path("report/table.html.j2") in ours
    assert not (installed / "conf").exists()


def files_in(folder: Path) -> Iterator[Path]:
    """The files below a folder, relative to it, but for what Python and numba cache."""
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder)


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


APP = """
import json
import sys

import hydra
from omegaconf import OmegaConf

with hydra.initialize_config_module("zobench.conf", version_base="1.3"):
    whole = hydra.compose("config", ["optimizer=conmezo"])
with hydra.initialize_config_dir(sys.argv[1], version_base="1.3"):
    part = hydra.compose("mine")
shown = OmegaConf.to_container(part), OmegaConf.to_container(whole.optimizer, resolve=True)
print(json.dumps(shown))
"""
MINE = """
hydra: {searchpath: ["pkg://zobench.conf"]}
defaults: [model: tiny, tuning: lora, _self_]
tuning: {rank: 2}
"""


@pytest.mark.parametrize("where", ["checkout", "wheel"])
def test_hydra_reads_the_settings_as_a_package(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """`initialize_config_module`, and `pkg://zobench.conf` in the search path of another app."""
    site = ROOT if where == "checkout" else request.getfixturevalue("installed")
    (tmp_path / "mine.yaml").write_text(MINE)
    answer = subprocess.run(
        [sys.executable, "-P", "-W", "error::UserWarning", "-c", APP, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    part, optimizer = json.loads(answer.stdout)
    assert part["model"]["path"] == "zobench:tiny" and part["tuning"]["rank"] == 2
    assert optimizer["sampler"]["_target_"].endswith(".Cone") and optimizer["lr"]
    assert not (conf_dir() / "__pycache__").exists()
