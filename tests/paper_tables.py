"""Which overlays of conf/experiment are tables of papers, and what their grids are."""

import math
import re
from dataclasses import dataclass
from functools import cache

from zobench.cells import rows
from zobench.hydra_app import values_in
from zobench.paths import conf_dir

# tables of memory and time have no data, hence no shots, seeds or fixtures
_TASKLESS = re.compile(r"^  metric: (memory|seconds)", re.MULTILINE)


def texts() -> dict[str, str]:
    """Overlay -> its yaml."""
    return {path.stem: path.read_text() for path in (conf_dir() / "experiment").glob("*.yaml")}


def parents(text: str) -> list[str]:
    """The overlays that a yaml inherits from."""
    return re.findall(r"^  - /experiment/(\w+)$", text, re.MULTILINE)


def paper_tables() -> list[str]:
    """Overlays that name published numbers to stand beside theirs, and those that inherit."""
    files = texts()
    found = {
        n for n, text in files.items() if "\npublished:" in text and not _TASKLESS.search(text)
    }
    while more := {n for n in files.keys() - found if found & {*parents(files[n])}}:
        found |= more
    return sorted(found)


def commands(overlay: str, *more: str) -> list[tuple[str, ...]]:
    """The overrides that launch each grid of an overlay: its own, and those of the group `grid`."""
    own = (f"experiment={overlay}", *more)
    names = [name.partition("/")[2] for name in rows() if name.startswith(f"grid/{overlay}-")]
    return [own, *((*own, f"grid={name}") for name in names)]


@dataclass(frozen=True)
class Grid:
    """The sweep of an experiment: for each key of its grid the overrides, `key=value`."""

    choices: tuple[tuple[str, ...], ...]

    @classmethod
    @cache
    def of(cls, *overrides: str) -> "Grid":
        """What `zobench OVERRIDES` would sweep over."""
        import hydra

        from zobench.schema import register

        register()
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra.compose("config", [*overrides], return_hydra_config=True)
        assert str(config.hydra.mode) == "RunMode.MULTIRUN", overrides
        params = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
        swept = values_in(params).items()
        return cls(tuple(tuple(f"{key}={value}" for value in own) for key, own in swept))

    def __len__(self) -> int:
        return math.prod(map(len, self.choices))

    @property
    def corners(self) -> list[list[str]]:
        """The overrides of the first run and of the last."""
        return [[choice[place] for choice in self.choices] for place in (0, -1)]

    def values(self, key: str) -> list[str]:
        """What one key goes through; nothing if the grid does not have it."""
        words = [word for choice in self.choices for word in choice]
        return [word.split("=", 1)[1] for word in words if word.startswith(f"{key}=")]
