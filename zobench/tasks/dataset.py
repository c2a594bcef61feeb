"""Where an ordinary task's rows come from: the Hugging Face hub, or a folder of the user's."""

from collections.abc import Mapping
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks import files
from zobench.tasks.example import Row

_STEMS = {  # names that a split's file goes by
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


class Dataset:
    """Rows of a public data set, from the hub or from a folder.

    path, name, revision: the hub's namespaced id, configuration and (optional) revision.
    splits: our split -> the data set's; a missing `dev` is drawn from `train` by the task.
    rename: columns of local files that are named otherwise on the hub, old -> new;
    a file that has the new name already is left as it is.
    """

    def __init__(
        self,
        *,
        path: str,
        splits: Mapping[str, str],
        name: str | None = None,
        revision: str | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.name, self.revision = path, name, revision
        self.splits = dict(splits)
        self.rename = dict(rename or {})

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """All rows per split, from the folder if one is given, else from the hub.

        Raises UserError when they cannot be had.
        """
        if data_dir is None:
            return {ours: self._hub(theirs) for ours, theirs in self.splits.items()}
        folder = Path(data_dir).expanduser()
        found = {o: files.find(folder, _STEMS.get(t, (t,))) for o, t in self.splits.items()}
        return {ours: [self._renamed(r) for r in files.read(f)] for ours, f in found.items()}

    def _renamed(self, row: Row) -> Row:
        names = {k: new for k, new in self.rename.items() if new not in row.values}
        return Row({names.get(k, k): v for k, v in row.values.items()}, row.where)

    def _hub(self, split: str) -> list[Row]:
        import datasets  # heavy, and needed for the hub only

        try:
            table = datasets.load_dataset(self.path, self.name, split=split, revision=self.revision)
        except Exception as error:  # the hub's client raises dozens of types
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"data set {self.path} could not be loaded from the hub ({reason[0][:120]});"
                " set task.data_dir= to a folder with its files"
            ) from error
        where = f"{self.path} {split} row"
        return [Row(dict(values), f"{where} {i}") for i, values in enumerate(table)]
