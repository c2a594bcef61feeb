"""Rows of a data set, from the Hugging Face hub or from the user's files."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.paths import place_of
from zobench.tasks import files
from zobench.tasks.cells import named
from zobench.tasks.example import Row
from zobench.tasks.raw.parquet import shortest
from zobench.tasks.shots import shot_files
from zobench.tasks.shown import brief

_STEMS = {  # names that a split's file goes by
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
_HELD_OUT = 5  # of a single file, every fifth row is a test row


class Dataset:
    """Rows of a public data set, from the hub, from a folder or from a single file.

    path, name, revision: the hub's namespaced id, configuration and (optional) revision; data
    without a path are read from files only.
    fallback: a revision tried when that cannot be loaded, such as "refs/convert/parquet" for
    data sets whose hub repository holds a script.
    splits: our split -> the data set's; a missing `dev` is drawn from `train` by the task.
    files: our split -> file names (without ending) that are looked for before the usual ones.
    columns: the columns of a csv or tsv file without a header.
    encoding: of local text files, such as latin-1 or utf-16; None is UTF-8.
    rename: columns of local files that are named otherwise on the hub, old -> new;
    a file that has the new name already is left as it is.
    shape: turns one row of a file or of the hub into rows with the columns of the task.
    values: column -> what it says in files, as text -> what it says on the hub, after `shape`;
    a value that is not listed is left as it is.
    shots: folder of LM-BFF's few-shot rows inside the data folder, such as "16-13".

    `task.data_dir` may be a file, or a folder that holds one file of any name: counting its rows
    from 0, rows 4, 9, 14, ... are the test rows and the others the training rows. A few rows of
    each task are shipped, such as `zobench:fixtures/sst2.jsonl`.
    """

    def __init__(
        self,
        *,
        path: str | None,
        splits: Mapping[str, str],
        name: str | None = None,
        revision: str | None = None,
        fallback: str | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
        columns: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        shape: Callable[[Row], Iterable[Row]] | None = None,
        values: Mapping[str, Mapping[str, Any]] | None = None,
        shots: str | None = None,
        encoding: str | None = None,
    ) -> None:
        if encoding is not None:
            _check_encoding(encoding)
        self.path, self.name, self.revision, self.fallback = path, name, revision, fallback
        self.splits, self.encoding = dict(splits), encoding
        self.rename = {str(old): new for old, new in (rename or {}).items()}
        self.stems = {
            ours: (*(files or {}).get(ours, ()), *_STEMS.get(theirs, (theirs,)))
            for ours, theirs in self.splits.items()
        }
        self.columns, self.shape, self.shots = columns, shape, shots
        self.values = {
            column: {str(given): hub for given, hub in known.items()}
            for column, known in (values or {}).items()
        }
        # of the rows that came from the hub, by data set and split
        self.row_digests: dict[str, str] = {}

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """All rows per split, from the files if there are any, else from the hub.

        Raises UserError when they cannot be had.
        """
        if data_dir is None:
            if self.shots is not None:
                raise UserError(
                    f"task.source.shots={self.shots} is read from files: set task.data_dir="
                    " to the folder that holds it"
                )
            if self.path is None:
                raise UserError("task.data_dir: give the folder or the file with the data")
            raw = {ours: self._hub(theirs) for ours, theirs in self.splits.items()}
        else:
            raw = self._files(place_of(data_dir))
        return {
            ours: [shaped for row in rows for shaped in self._shaped(row)]
            for ours, rows in raw.items()
        }

    def input_files(self, data_dir: str | None) -> list[Path]:
        """The files that `rows` would read now; of the hub none are known.

        Raises UserError where one that is needed is not there.
        """
        if data_dir is None:
            return []
        return sorted(
            {part for path in self._chosen(place_of(data_dir)) for part in files.parts(path)}
        )

    def _shaped(self, row: Row) -> Iterable[Row]:
        rows = [row] if self.shape is None else self.shape(row)
        return map(self._valued, rows)

    def _valued(self, row: Row) -> Row:
        mapped = {
            column: known.get(str(row.values[column]), row.values[column])
            for column, known in self.values.items()
            if column in row.values
        }
        return Row(row.values | mapped, row.where)

    def _files(self, place: Path) -> dict[str, list[Row]]:
        """The renamed rows of the splits' files, or of a single file that is cut in two."""
        if self.shots is None and (single := self._single(place)) is not None:
            return _cut(self._read(single), single)
        return {ours: self._read(path) for ours, path in self._by_split(place).items()}

    def _chosen(self, place: Path) -> list[Path]:
        """The files that `_files` reads, each by one name."""
        single = None if self.shots is not None else self._single(place)
        return [*self._by_split(place).values()] if single is None else [single]

    def _by_split(self, place: Path) -> dict[str, Path]:
        if self.shots is not None:
            return shot_files(place, self.shots)
        return {ours: files.find(place, stems) for ours, stems in self.stems.items()}

    def _single(self, place: Path) -> Path | None:
        """The file that is all there is; None where a folder holds several or that of a split."""
        if place.is_file():
            return place
        if not place.is_dir() or any(files.in_folder(place, s) for s in self.stems.values()):
            return None
        known = [
            p for p in place.iterdir() if p.is_file() and p.name.lower().endswith((*files.ENDINGS,))
        ]
        return known[0] if len(known) == 1 else None

    def _read(self, path: Path) -> list[Row]:
        return [self._renamed(row) for row in files.read(path, self.columns, self.encoding)]

    def _renamed(self, row: Row) -> Row:
        known = {named(row.values, old): new for old, new in self.rename.items()}
        names = {k: new for k, new in known.items() if new not in row.values}
        return Row({names.get(k, k): v for k, v in row.values.items()}, row.where)

    def _hub(self, split: str) -> list[Row]:
        tries: list[tuple[str | None, dict[str, Any]]] = [(self.name, {"revision": self.revision})]
        if self.fallback is not None:  # a converted revision has a folder per configuration
            tries.append((None, {"revision": self.fallback, "data_dir": self.name}))
        errors = []
        for name, options in tries:
            try:
                table = self._load(name, split=split, **options)
                break
            except Exception as error:  # the hub's client raises dozens of types
                errors.append(error)
        else:  # the first error says why, the last one only that there is no converted revision
            reason = str(errors[0]).strip().splitlines() or [type(errors[0]).__name__]
            raise UserError(
                f"data set {self.path} could not be loaded from the hub ({reason[0][:120]});"
                " set task.data_dir= to a folder with its files"
            ) from errors[0]
        where = f"{self.path} {split} row"
        rows = [Row(values, f"{where} {i}") for i, values in enumerate(_values(table))]
        self.row_digests[f"{self.path} {split}"] = _digest(rows)
        return rows

    def _load(self, name: str | None, **options: Any) -> Iterable[Mapping[str, Any]]:
        import datasets  # heavy, and needed for the hub only

        return datasets.load_dataset(self.path, name, **options)


def _values(table: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells of each row; numbers of 32 bits by the digits that they have, as from parquet."""
    rows = [dict(values) for values in table]
    features = getattr(table, "features", None)
    for column in [] if features is None else features.arrow_schema:
        cells = shortest(column.type, [row[column.name] for row in rows])
        for row, cell in zip(rows, cells, strict=True):
            row[column.name] = cell
    return rows


def _check_encoding(encoding: str) -> None:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError):  # also codecs that are none of text
        raise UserError(
            f"task.source.encoding={brief(encoding)}: no such encoding; there are latin-1, cp1252,"
            " utf-16, gb18030, ..."
        ) from None


def _digest(rows: Iterable[Row]) -> str:
    """A hash of the rows' values, in their order."""
    whole = hashlib.sha256()
    for row in rows:
        text = json.dumps(row.values, sort_keys=True, default=repr)
        whole.update(f"{text}\n".encode("utf-8", "surrogatepass"))
    return whole.hexdigest()


def _cut(rows: list[Row], path: Path) -> dict[str, list[Row]]:
    """Train and test of a single file; always the same, as results must not depend on a draw."""
    last = _HELD_OUT - 1
    if len(rows) < _HELD_OUT:
        raise UserError(f"{path}: {len(rows)} rows are too few to hold out every {_HELD_OUT}th")
    train = [row for i, row in enumerate(rows) if i % _HELD_OUT != last]
    return {"train": train, "test": rows[last::_HELD_OUT]}
