"""Errors for people: one or two lines that name the key, or file and line, and what to do."""

import re


class UserError(ValueError):
    """Bad input from the user; the message is the whole story.

    The command line prints it without a traceback and exits with status 1.
    """


def explain(error: BaseException) -> str | None:
    """One or two lines for an error of the user's, None for a defect of zobench's."""
    from hydra.errors import HydraException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: this setting must be given, as in {error.full_key}=..."
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        lines += [line.strip() for line in str(cause).splitlines()]
    if match := re.match(r"Could not override '(.+)'", lines[0]):
        return f"{match[1]}: no such setting or group; `zobench run --cfg job` shows all settings"
    if "Available options" in str(error):
        first = next(i for i, line in enumerate(lines) if line.startswith("Available options"))
        options = [line for line in lines[first + 1 :] if re.fullmatch(r"[\w.-]+", line)]
        return f"{lines[0]}\n{lines[first]} {', '.join(options)}"
    noise = ("full_key", "object_type", "reference_type")
    return "\n".join([line for line in lines if not line.startswith(noise)][:2])
