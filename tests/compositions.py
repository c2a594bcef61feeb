"""What every composition of conf/ resolves to, to compare before and after a change of the tree.

    python -m tests.compositions BEFORE.json
    python -m tests.compositions AFTER.json --against BEFORE.json

Composed are: every option of every group alone; every row of a protocol; every overlay at no scale,
`scale=smoke` and `scale=lab`, with the first and the last run of each of its grids and with each
option that a grid chooses. Options that no row exists for are covered by the list of rows.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra

from tests.hydra_files import read_once
from tests.paper_tables import commands
from tests.test_conf import NEEDS
from zobench.hydra_app import values_in
from zobench.paths import conf_dir
from zobench.schema import register, resolved
from zobench.settings import identity
from zobench.why import leaves

GROUPS = (
    *("model", "tuning", "task", "optimizer", "rule", "sampler", "estimator", "arithmetic"),
    *("logger", "data", "protocol", "scale"),
)
CHOSEN = {*GROUPS}  # keys of a grid of which each value is composed


def options(group: str) -> list[str]:
    """The options of a group, from all places that have some."""
    loader = GlobalHydra.instance().config_loader()
    return sorted(loader.get_group_options(group, config_name="config", overrides=[]))


def keys() -> Iterator[tuple[str, ...]]:
    """The overrides of every composition."""
    yield ()
    for group in GROUPS:
        for option in options(group):
            word = f"{group}={option}"
            yield (word, *NEEDS.get(word, ()))
    for row in options("protocol/of"):
        protocol, optimizer, tuning = row.split("-")
        yield f"protocol={protocol}", f"optimizer={optimizer}", f"tuning={tuning}"
    for task in options("task"):
        if not task.startswith("custom"):
            yield from ((f"task={task}", f"data={data}") for data in options("data"))
    for overlay in options("experiment"):
        for scale in ("", "smoke", "lab"):
            for words in commands(overlay, *([f"scale={scale}"] if scale else [])):
                yield from ((*words, *job) for job in jobs(*words))


def jobs(*words: str) -> list[tuple[str, ...]]:
    """Of the grid of an overlay: the first run, the last, and one for each option."""
    config = hydra.compose("config", [*words], return_hydra_config=True)
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    choices = [[f"{key}={value}" for value in own] for key, own in values_in(params).items()]
    first, last = [tuple(choice[place] for choice in choices) for place in (0, -1)]
    found = [first, last]
    for place, choice in enumerate(choices):
        if choice[0].split("=")[0] in CHOSEN:
            found += [(*first[:place], one, *first[place + 1 :]) for one in choice]
    return list(dict.fromkeys(found))


def settings_of(words: tuple[str, ...]) -> Any:
    """The resolved settings with the id of the run, or what was wrong with them."""
    try:
        settings = resolved(hydra.compose("config", [*words]))
        return {"id": identity(settings), **settings}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def composed() -> dict[str, Any]:
    """Key -> settings, and the rows that there are."""
    register()
    read_once()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        found = {" ".join(words): settings_of(words) for words in dict.fromkeys(keys())}
        return {"rows": {"protocol/of": ", ".join(options("protocol/of"))}, **found}


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    """What differs -> in which compositions."""
    found = defaultdict(list)
    for key in before.keys() | after.keys():
        if key not in before or key not in after:
            found["is no longer there" if key in before else "is new"].append(key)
            continue
        old, new = leaves(before[key]), leaves(after[key])
        for name in old.keys() | new.keys():
            was, now = old.get(name, "(absent)"), new.get(name, "(absent)")
            if was != now:
                found[f"{name}: {was} -> {now}"].append(key)
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="an older file, to compare with")
    given = parser.parse_args()
    found = composed()
    given.out.write_text(json.dumps(found))
    errors = sum("error" in settings for settings in found.values())
    print(f"{len(found)} compositions, {errors} of them errors: {given.out}")
    if given.against:
        moved = differences(json.loads(given.against.read_text()), found)
        for what, where in sorted(moved.items(), key=lambda pair: -len(pair[1])):
            print(f"{len(where):5} {what[:200]}\n      {'; '.join(sorted(where)[:3])[:300]}")
        print(f"{len(moved)} differences" if moved else "equal")


if __name__ == "__main__":
    main()
