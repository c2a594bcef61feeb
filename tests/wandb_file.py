"""Reading back what W&B wrote while it was offline."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768


def records(folder: Path) -> Iterator[tuple[str, Any]]:
    """Kind and message of each record of a run folder's offline file.

    A 7-byte header, then LevelDB log blocks.
    """
    from wandb.proto import wandb_internal_pb2

    [path] = folder.glob("wandb/offline-run-*/*.wandb")
    data = path.read_bytes()
    at, parts = 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, part = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            kind = record.WhichOneof("record_type")
            yield kind, getattr(record, kind)


def items(message: Any) -> dict[str, Any]:
    """The values of a message by key."""
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in message}
