"""Run folders as a launch leaves them, made by hand."""

import json
from pathlib import Path
from typing import Any


def run(suite: Path, name: str, **files: Any) -> Path:
    """A run folder with settings and these files, such as `result={...}`."""
    folder = suite / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    for key, value in files.items():
        (folder / f"{key}.json").write_text(json.dumps(value))
    return folder
