"""The one exception whose message is the whole story."""


class UserError(ValueError):
    """Bad input from the user: the message names the key or file and line and says what to do.

    The command line prints it without a traceback and exits with status 1.
    """
