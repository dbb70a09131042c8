"""The one exception that means "the input is wrong, and here is how to mend it"."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 2.
    """
