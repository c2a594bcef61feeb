"""Undoing the steps that ranks took with different weights."""

import json

from zobench.run.checkpoint import Checkpoints
from zobench.run.folder import RunFolder, write_atomically
from zobench.run.journal import read_rows
from zobench.zo.ledger import recover


def cut_back(folder: RunFolder, step: int) -> None:
    """Leave what the folder held after so many steps, from which the run can go on."""
    rows = [row for row in read_rows(folder.metrics)[0] if row["step"] <= step]
    write_atomically(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    if folder.ledger.is_file():
        whole = recover(folder.ledger, steps=step)
        write_atomically(folder.ledger, folder.ledger.read_bytes()[: whole.size])
    Checkpoints(folder.path, None, None).forget_after(step)
