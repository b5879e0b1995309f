"""The one base of every error that a user can cause and mend."""


class UserError(Exception):
    """An error with one line that says what is wrong, why, and what to do; the command prints that line alone.

    Attributes:
        exit_code: Exit code of the command: 1 for a failed run, 2 for a wrong use.
    """

    exit_code = 1


class UsageError(UserError):
    """Options or arguments that cannot work."""

    exit_code = 2
