"""Hydra reads each file of conf/ once in a process, not once per composition."""

import copy
import functools
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource

from zobench.paths import conf_dir


def read_once() -> None:
    """Keep the parsed files of conf/; those of a `--config-dir` are read each time."""
    plain = FileConfigSource.load_config
    kept = functools.cache(plain)
    sources: dict[str, FileConfigSource] = {}

    def load_config(source: FileConfigSource, config_path: str) -> Any:
        if source.path != str(conf_dir()):
            return plain(source, config_path)
        return copy.deepcopy(kept(sources.setdefault(source.path, source), config_path))

    setattr(FileConfigSource, "load_config", load_config)  # noqa: B010
