"""The one exception whose message is the whole story."""


class UserError(ValueError):
    """Bad input from the user: one or two lines that name the key, or file and line, and a way out.

    The command line prints it without a traceback and exits with status 1.
    """
