"""The files of examples/ do what docs/examples.md says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from tests.pages import DOCS, ROOT, blocks, runs, text_of
from zobench.integrations.transformers import optimizer_of

PAGE = DOCS / "examples.md"
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "default"}


def called(*arguments: str, at: Path) -> str:
    """What a Python process prints, in a folder of runs of its own."""
    text_of(PAGE)
    answer = subprocess.run(
        [sys.executable, *arguments],
        cwd=at,
        env={**os.environ, **ENVIRONMENT, "ZOBENCH_RUNS": str(at / "runs")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.smoke
def test_the_notebook_goes_from_a_csv_to_a_table_and_a_figure(tmp_path: Path) -> None:
    """Its code cells, in order and in one process; fewer forward passes."""
    text_of(PAGE)
    notebook = json.loads((EXAMPLES / "own_csv.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    code = "\n".join("".join(cell["source"]) for cell in cells)
    short, count = re.subn(r"FORWARDS = \d+", "FORWARDS = 80", code)
    assert count == 1
    out = called("-c", short, at=tmp_path)
    assert "own_csv: test/accuracy (%)" in out and "ConMeZO" in out and "Zero-shot" in out
    assert "6 runs: 6 done" in out
    assert (tmp_path / "own_csv.png").read_bytes().startswith(b"\x89PNG")
    shown = "".join("".join(o.get("text", "")) for cell in cells for o in cell["outputs"])
    for line in blocks(PAGE, "text")[0].splitlines():
        assert line in shown


def test_the_digits_are_learnt_by_forward_passes(tmp_path: Path) -> None:
    """800 steps reach 85 % on the test split; the page shows the 3000 of the default."""
    out = called(str(EXAMPLES / "digits.py"), "--steps", "800", at=tmp_path)
    reached = re.search(r"step 800: loss [\d.]+, test ([\d.]+) %", out)
    assert reached is not None and float(reached[1]) > 85
    assert "step 3000: " in blocks(PAGE, "text")[1]


def test_a_lightning_module_takes_the_steps_of_a_plain_loop(tmp_path: Path) -> None:
    """Three epochs of the example: the loss that a loop over the same batches has."""
    pytest.importorskip("lightning", reason="the package lightning is not installed")
    code = (EXAMPLES / "lightning_digits.py").read_text()
    short, count = re.subn("max_epochs=100", "max_epochs=3, accelerator='cpu'", code)
    assert count == 1
    out = called("-c", f"import torch\ntorch.manual_seed(0)\n{short}", at=tmp_path)
    images, classes = map(torch.tensor, load_digits(return_X_y=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({"layer": torch.nn.Linear(64, 10)})
    made = optimizer_of("optimizer=mezo", "optimizer.lr=3e-2")
    optimizer: Any = made(model.named_parameters())
    batches = [*zip((images.float() / 16).split(256), classes.split(256), strict=True)] * 3
    for x, y in batches:
        loss = optimizer.step(lambda x=x, y=y: cross_entropy(model["layer"](x), y))
    assert f"{len(batches)} steps: loss {loss:.3f}" in out


@pytest.mark.smoke
def test_a_method_of_ones_own_is_two_files(tmp_path: Path) -> None:
    """The page's command, for fewer steps; the clipped slopes are within the limit."""
    from zobench.zo.ledger import read

    folder = EXAMPLES / "own_method"
    files = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {p.suffix for p in files} == {".py", ".yaml"} and len(files) == 2
    assert sum(len(path.read_text().splitlines()) for path in files) <= 40
    [words] = [words for words in runs(PAGE) if "--config-dir" in words]
    words = [str(folder) if word.startswith("examples/") else word for word in words]
    code = "from zobench.cli import main; main()"
    called("-c", code, *words, "budget.steps=3", "optimizer.lr=3e-3", at=tmp_path)
    found = {}
    for path in (tmp_path / "runs" / "own_method").glob("*/ledger.bin"):
        settings = yaml.safe_load((path.parent / "config.yaml").read_text())
        estimator = settings["optimizer"]["estimator"]
        slopes = [c for record in read(path) for c in record.coefficients]
        found[estimator["_target_"].rpartition(".")[2]] = slopes, estimator.get("limit")
    slopes, limit = found.pop("Clipped")
    assert limit and len(slopes) == 3 and max(map(abs, slopes)) <= limit
    [(slopes, _)] = found.values()
    assert max(map(abs, slopes)) > limit


@pytest.mark.parametrize("words", ["hf upload", "hf auth login"])
def test_the_command_of_the_hub_is_there(words: str, tmp_path: Path) -> None:
    """The words that the page shows are commands of huggingface_hub, asked for help alone."""
    assert words in text_of(PAGE)
    code = "from huggingface_hub.cli.hf import main; main()"
    out = called("-c", code, *words.split()[1:], "--help", at=tmp_path)
    assert "Usage:" in out and ("upload" not in words or "--private" in out)
