"""The files of the ranks after the first: in temporary folders.

All ranks do the same steps and decide alike. Only the first writes weights and checkpoints.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zobench.run.best_weights import BestWeights, step_in
from zobench.run.checkpoint import Checkpoints
from zobench.run.folder import RunFolder, write_atomically
from zobench.run.metrics_log import read_rows
from zobench.run.ranks.group import Group
from zobench.zo.ledger import recover


@contextmanager
def own_folder(folder: RunFolder, group: Group | None) -> Iterator[RunFolder]:
    """The run folder for the first rank; for others, a copy of what the run resumes from."""
    if group is None:
        yield folder
        return
    paths = (folder.metrics, folder.ledger, folder.meta)
    files = group.from_first({path.name: path.read_bytes() for path in paths if path.is_file()})
    if group.first:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="zobench-rank-") as place:
        own = RunFolder(Path(place))
        for name, content in files.items():
            (own.path / name).write_bytes(content)
        for checkpoint in folder.path.glob("checkpoint-*.pt"):
            (own.path / checkpoint.name).symlink_to(checkpoint.resolve())
        yield own


class SharedBestWeights(BestWeights):
    """BestWeights that the first rank writes, and all ranks read in the end."""

    def __init__(
        self, folder: RunFolder, trained: Mapping[str, Any], group: Group, select: str | None
    ) -> None:
        self._group = group
        super().__init__(Path(group.from_first(str(folder.weights))), trained, select=select)

    def recover(self, evaluated: Any) -> None:
        if self._group.first:
            super().recover(evaluated)
        self._group.wait()
        self.stored = step_in(self.path)

    def keep(self) -> None:
        if self._group.first:
            super().keep()

    def restore(self, *, keep: bool) -> None:
        self._group.wait()
        self.stored = step_in(self.path)
        super().restore(keep=keep)
        self._group.wait()

    def _save(self, path: Path) -> None:
        if self._group.first:
            super()._save(path)


def cut_back(folder: RunFolder, step: int) -> None:
    """Restore the folder to its state after `step` steps, from which the run can resume."""
    rows = [row for row in read_rows(folder.metrics)[0] if row["step"] <= step]
    write_atomically(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    if folder.ledger.is_file():
        whole = recover(folder.ledger, steps=step)
        write_atomically(folder.ledger, folder.ledger.read_bytes()[: whole.size])
    Checkpoints(folder.path, None, None).clear(after=step)
