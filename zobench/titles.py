"""Names of options, from the first line of their yaml: `# Name (reference): ...`."""

import re

from zobench.paths import conf_dir

_TITLE = re.compile(r"# (?P<name>[^:(]+?)(?: \((?P<source>[^)]*)\))?[:,;]")


def title_of(group: str, option: str) -> tuple[str, str] | None:
    """(name, reference) of an option of a group in conf/; None if its yaml begins otherwise.

    Also None without such a file: the option may be of a folder given by `--config-dir`.
    """
    path = conf_dir() / group / f"{option}.yaml"
    if not re.fullmatch(r"\w+", option) or not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((line for line in lines if not line.startswith("# @package")), "")
    found = _TITLE.match(first)
    return (found["name"], found["source"] or "") if found else None
