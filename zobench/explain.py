"""Turns errors of libraries into messages of one or two lines."""

import re
import shlex
import traceback
from typing import Any

from zobench.errors import UserError

_DOLLAR = (
    r"a dollar before a brace is \${, as in costs \${{ price }} (inside "
    r'"..." of YAML \\${); a column is {{ price }}'
)

_LIMIT = 160  # characters shown of an argument


def explained(error: BaseException) -> str | None:
    """One or two lines for an error of the user; None for a defect of zobench."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: this setting must be given, as in {error.full_key}=..."
    if isinstance(error, OverrideParseException):
        return _not_override(str(error.override), str(error.args[0]).splitlines()[0])
    if isinstance(error, YAMLError):
        return _not_yaml(error)
    if (dollar := _dollar(error)) is not None:
        return dollar
    theirs = isinstance(error, HydraException | OmegaConfBaseException)
    if isinstance(error, ValueError) and not theirs:
        package, reason = _raised_in(error), (str(error).splitlines() or ["ValueError"])[0]
        if package == "hydra":
            return reason if reason.startswith("Only one of --") else f"a config file: {reason}"
        if package == "optuna":  # such as a search in which every run has failed
            return f"hydra/sweeper=optuna: {reason}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if not theirs:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        lines += [line.strip() for line in str(cause).splitlines()]
    if match := re.match(r"Could not override '(.+)'", lines[0]):
        return f"{match[1]}: no such setting or group; `--cfg job` shows all settings"
    if "Available options" in str(error):
        first = next(i for i, line in enumerate(lines) if line.startswith("Available options"))
        options = [line for line in lines[first + 1 :] if re.fullmatch(r"[\w.-]+", line)]
        return f"{lines[0]}\n{lines[first]} {', '.join(options)}"
    if match := re.match(r"Error resolving interpolation '(.+?)', possible", lines[0]):
        groups = " and ".join(re.findall(r"\w+", match[1]))
        return f"the groups {groups} cannot be deleted with ~: other settings are found by them"
    if match := re.match(r"Interpolation key '(.+)' not found", lines[0]):
        where = getattr(error, "full_key", None) or "a setting"
        return f"{where} needs {match[1]}, which the chosen options do not have: they do not fit"
    lines[0] = re.sub(r"^\w+ raised while resolving interpolation: ", "", lines[0])
    found = re.search(r"full_key: ([\w.]+)", f"{error} {cause}")
    key = getattr(error, "full_key", None) or (found and found[1])
    if key and key not in lines[0]:
        lines[0] = f"{key}: {lines[0]}"
    noise = ("full_key", "object_type", "reference_type")
    return "\n".join([line for line in lines if not line.startswith(noise)][:2])


def _not_override(typed: str, reason: str) -> str:
    """The message for an invalid override, with the quotation that Hydra and the shell need."""
    shown = typed.replace("\n", "\\n")
    shown = shown if len(shown) <= _LIMIT else f"{shown[: _LIMIT - 3]}..."
    text = f"{shown}: not KEY=VALUE as Hydra reads it ({reason[:_LIMIT]})"
    if "${" in typed:
        return f"{text}\n{_DOLLAR}"
    if not re.match(r"[+~]*[\w.@/-]+=", typed):
        return text
    if (quoted := _quoted(typed)) is not None:
        return f"{text}\nquote it for Hydra and for the shell: {quoted}"
    return f'{text}\nquote texts with special characters twice, as in \'KEY=["A (b)","c"]\''


def _quoted(typed: str) -> str | None:
    """The setting with its value quoted; None if another value may be meant."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, value = typed.split("=", 1)
    if re.match(r"""["'\[]|\{(?!\{)""", value) or not value.isprintable() or len(typed) > _LIMIT:
        return None
    text = value.replace('"', '\\"')
    meant = f'{key}="{text}"'
    try:
        read = OverridesParser.create().parse_override(meant).value()
    except HydraException:
        return None
    return shlex.quote(meant) if str(read) == value else None


def _dollar(error: BaseException) -> str | None:
    """The message for a `${` that is a dollar in a task's template, not an interpolation."""
    from omegaconf.errors import GrammarParseError, InterpolationResolutionError

    found: BaseException
    cause = error if isinstance(error, GrammarParseError) else error.__cause__
    if isinstance(cause, GrammarParseError):
        found, why = cause, "an interpolation of settings begins with ${ and this is none"
    elif isinstance(error, InterpolationResolutionError):
        found, why = error, str(error).splitlines()[0]
    else:
        return None
    typed = re.match(r"Error merging override [+~]*([\w.@/]+)=", str(error))
    key = getattr(found, "full_key", None) or ""
    if typed and not key.startswith("task."):  # the key of a list item is only its number
        key = typed[1]
    if cause is not found and not key.startswith("task."):
        return None
    return f"{key or 'a setting'}: {why[:160]}\n{_DOLLAR}"


def _not_yaml(error: Any) -> str:
    """The message for a config file that is not YAML."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        text = f"{mark.name}:{mark.line + 1}: not valid YAML ({error.problem})"
        return f"{text}\n{_DOLLAR}" if "character '$'" in str(error.problem) else text
    return f"{getattr(error, 'name', 'a config file')}: not valid YAML ({error.reason})"


def _raised_in(error: BaseException) -> str:
    """The top-level package whose code raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals["__name__"]).partition(".")[0] if frames else ""
