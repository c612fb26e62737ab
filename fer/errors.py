"""The one exception for mistakes that the person at the keyboard can mend.

Knows nothing of where it is raised; the entry points print its text without a traceback and exit with EXIT_CODE.
"""

EXIT_CODE = 2


class UserError(Exception):
    """A mistake in the input or the surroundings. Its text names the thing and says the way out."""


def first_line(error: BaseException) -> str:
    """What another library said, without what it adds below."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
