"""`make gpu-lab`: its parts by themselves, and all of it with two rows of the tiny model."""

import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from zobench.bench import gpu_lab
from zobench.paths import ASSETS_DIR


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    """A folder of data with files of SST-2's names and columns."""
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    rows = [f"a film number {n} that is {'good' if n % 2 else 'bad'}\t{n % 2}" for n in range(64)]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
    return folder.parent


@pytest.mark.smoke
def test_all_of_it_leaves_an_archive_and_a_table(
    sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No weights are in the archive, and what it says is done has results there."""
    out = tmp_path / "out"
    words = ["--forwards", "4", "--sizes", "16", "--seeds", "1", "--device", "cpu"]
    words += ["--model", str(ASSETS_DIR / "tiny"), "--data", str(sst2), "--out", str(out)]
    more = ["optimizer=mezo,zero_shot", "evaluation=standard", "train.keep_weights=true"]
    assert gpu_lab.main([*words, *more]) == 0
    assert re.search(r"\| MeZO.* \|", capsys.readouterr().out)
    assert (out / "curves.png").stat().st_size > 0
    with tarfile.open(out / "lab_seeds.tar.gz") as archive:
        names = archive.getnames()
    assert sum(name.endswith("result.json") for name in names) == 2
    assert not [name for name in names if name.endswith(".safetensors")]


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    """A file or a folder with the whole is taken as it is; a folder without either is refused."""
    parts, work = tmp_path / "parts", tmp_path / "work"
    parts.mkdir()
    work.mkdir()
    with pytest.raises(SystemExit, match="neither a GGUF file nor parts"):
        gpu_lab.joined(parts, work)
    for name, text in (("model.partab", b"two"), ("model.partaa", b"one")):
        (parts / name).write_bytes(text)
    assert gpu_lab.joined(parts, work).read_bytes() == b"onetwo"
    whole = parts / "x.gguf"
    whole.write_bytes(b"whole")
    assert gpu_lab.joined(parts, work) == gpu_lab.joined(whole, work) == whole
    folder = ASSETS_DIR / "tiny"
    assert gpu_lab.converted(gpu_lab.joined(folder, work), work / "model") == folder


def test_a_sweep_that_takes_too_long_is_asked_to_stop(tmp_path: Path) -> None:
    """It has time to save."""
    saves = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    start = time.monotonic()
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", saves + "time.sleep(60)"]
        assert gpu_lab.ended(command, {}, log, 1.0) == 75
    assert time.monotonic() - start < 30


def test_no_wheels_is_said(tmp_path: Path) -> None:
    """Before anything else is done."""
    with pytest.raises(SystemExit, match="no wheels there"):
        gpu_lab.install(tmp_path)


def test_it_starts_where_nothing_but_python_is() -> None:
    """What is installed by it must not be imported before."""
    code = "import sys; import zobench.bench.gpu_lab; print('hydra' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
