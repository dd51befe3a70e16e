"""The one exception that says: the input is wrong, and here is how to mend it."""


class InputError(ValueError):
    """Wrong input from a user: the message is one sentence that says what, where, and how to mend it.

    The command line prints the message alone and exits with status 2; in Python it is an ordinary
    ``ValueError``.
    """
