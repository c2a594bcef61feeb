"""The exception for bad input."""


class UserError(ValueError):
    """Bad input, in one or two lines that name the key, or file and line, and a remedy.

    The command line prints it without a traceback and exits with status 1.
    """
