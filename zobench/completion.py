"""Completion for bash and zsh: sub-commands, suites, groups, their options, settings.

It reads the listing of conf/ and the source of the schema, and imports neither Hydra nor torch.
"""

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from zobench.paths import conf_dir
from zobench.settings_reference import GROUP, settings

_FLAGS = ("-m", "--config-dir", "--cfg", "--help", "--version")
_BASH = """\
_zobench() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    COMPREPLY=($("$1" _complete "$line" 2>/dev/null))
    local word="${line##* }"
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")  # bash splits words at =
    fi
}
complete -o nospace -o default -F _zobench zobench
"""
_ZSH = """\
_zobench() {
    local -a found
    found=("${(@f)$("${words[1]}" _complete "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found[1] ]]; then
        compadd -Q -S '' -- "${found[@]}"
    else
        _files
    fi
}
compdef _zobench zobench
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH}


def main(arguments: Sequence[str]) -> int:
    """Print the script that makes a shell complete `zobench`."""
    parser = argparse.ArgumentParser(
        prog="zobench completion",
        description="Print the completion script of a shell, to be evaluated in its start file.",
        epilog='in ~/.bashrc: eval "$(zobench completion bash)"; in ~/.zshrc, after compinit:'
        ' eval "$(zobench completion zsh)"',
    )
    parser.add_argument("shell", choices=SHELLS)
    print(SHELLS[parser.parse_args(arguments).shell], end="")
    return 0


def candidates(line: str, commands: Sequence[str], usage: str) -> list[str]:
    """What the last word of a command line may become; what is complete ends in a space.

    Args:
        line: up to the cursor, with the name of the program.
        commands: the sub-commands.
        usage: the text of `zobench --help`, which says which sub-commands take a suite.
    """
    _, *words = re.split(r"\s+", line) if " " in line else ("", "")
    word = words[-1]
    command = words[0] if len(words) > 1 and words[0] in commands else ""
    own = _folders(words)
    if "=" in word:
        group, _, value = word.lstrip("+").partition("=")
        before = word[: len(word) - len(value.rpartition(",")[2])]
        found: Iterable[str] = (f"{before}{option}" for option in _options(group, own))
    elif command in re.findall(r"^  zobench (\w+) \[?SUITE", usage, flags=re.MULTILINE):
        found = (f"{suite} " for suite in _suites())
    elif command == "completion":
        found = (f"{shell} " for shell in SHELLS)
    elif command not in ("", "run", "tune", "why", "fits"):
        return []  # the shell completes names of files
    else:
        first = [f"{name} " for name in commands] if len(words) < 2 else []
        keys = (setting.key for setting in settings() if setting.kind != GROUP)
        found = [*first, *(f"{key}=" for key in (*_groups(own), *keys)), *_FLAGS]
    return sorted({one for one in found if one.startswith(word)})


def _folders(words: Sequence[str]) -> list[Path]:
    """conf/, and the user's folder if the command line names one."""
    given = [b for a, b in pairwise(words) if a in ("--config-dir", "-cd")]
    return [conf_dir(), *(Path(folder).expanduser() for folder in given[-1:])]


def _groups(folders: Iterable[Path]) -> set[str]:
    """The groups that have an option in one of the folders."""
    files = [(folder, path) for folder in folders for path in folder.rglob("*.yaml")]
    named = {path.parent.relative_to(folder).as_posix() for folder, path in files}
    return named - {".", "cells"}


def _options(group: str, folders: Iterable[Path]) -> list[str]:
    return [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]


def _suites() -> list[str]:
    root = Path(os.environ.get("ZOBENCH_RUNS") or "runs")
    there = root.iterdir() if root.is_dir() else ()
    return [path.name for path in there if path.is_dir() and path.name[0] != "."]
