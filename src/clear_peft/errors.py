"""What can go wrong, told apart by what a user can do about it."""


class InputError(ValueError):
    """Wrong input from a user: the message is one sentence that says what, where, and how to mend it.

    The command line prints the message alone and exits with status 2; in Python it is an ordinary
    ``ValueError``.
    """


class RunFailedError(Exception):
    """The input was right, but the run could not be finished: the message is one sentence that says why.

    The command line prints the message alone and exits with status 1.
    """


class ClearWarning(UserWarning):
    """Something that a user should know of a run that goes on: the message is one sentence.

    The command line shows it as a note.
    """
