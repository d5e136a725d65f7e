"""The exceptions of imgflow, in three kinds because different people fix them.

Whoever starts imgflow fixes a wrong setting, whoever uploaded an image fixes a rejected one, and
external trouble passes with time. Only `Rejected` is ever a decision about an image. What to do
about each code is in `imgflow.advice`; the API's own errors are in `imgflow.api.http.problems`.
"""

import errno

from imgflow.foreign_text import visible

# Errors in which the operating system complains about its arguments, not about itself.
_ABOUT_ARGUMENTS = frozenset({errno.EINVAL, errno.EDOM, errno.ERANGE, errno.EOVERFLOW})


def is_of_machine(error: BaseException) -> bool:
    """Return whether an error is about this machine rather than the file being processed.

    Examples: disk full, too many open files, memory that runs out although the image is within its
    limit, or a part of the installation that cannot be loaded. Decoders raise `OSError` about bytes
    too, but without an `errno`.
    """
    if isinstance(error, (MemoryError, ImportError, ConnectionError, TimeoutError)):
        return True
    return (
        isinstance(error, OSError)
        and error.errno is not None
        and error.errno not in _ABOUT_ARGUMENTS
    )


class ImgflowError(Exception):
    """Base of every error that imgflow raises on purpose.

    Its text goes to terminals and logs, and may quote untrusted keys, files and servers.
    """

    def __str__(self) -> str:
        return visible(super().__str__(), keep="\n")


class SettingsError(ImgflowError):
    """A setting is missing or wrong; the text names it and the fix in one sentence."""


class NotOurs(SettingsError):
    """The output location belongs to another catalogue, so its outputs must not be touched."""


class TooMany(ImgflowError):
    """So much would be deleted or rebuilt that it is probably a mistake; nothing was done."""


class BadKey(ImgflowError):
    """Nothing can be put into the source under this key; choose another key."""


class Rejected(ImgflowError):
    """The object itself cannot become an image; a rerun will not help until it changes.

    Attributes:
        code: Short machine-readable name of the cause, such as `truncated` or `too_many_pixels`.
        reason: One sentence for a person, including the numbers.
    """

    def __init__(self, code: str, reason: str) -> None:
        reason = visible(reason)
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Withheld(Rejected):
    """The store blocks access to the bytes until someone acts: they are archived or encrypted.

    Nothing is wrong with the image, so earlier outputs of this upload stay.
    """


class Trouble(ImgflowError):
    """Something external (object store, database) does not answer; a retry may succeed.

    Attributes:
        code: The `reason_code` of images that wait because of it.
    """

    code = "trouble"


class Unreadable(Trouble):
    """The store answers but denies reading this object: a policy or file mode needs fixing.

    It says nothing about other objects.
    """

    code = "unreadable"


class OutputFailed(Trouble):
    """Code of an installed package raised an error while making its output; retried later.

    This is no decision about the image: the package may have a bug, or its service may be down.
    """

    code = "output_failed"


class SourceChanged(Trouble):
    """The object is no longer the announced one: it was overwritten or deleted in between."""

    code = "changing"


TROUBLE_CODES = (Trouble.code, Unreadable.code, OutputFailed.code, SourceChanged.code)
"""The `reason_code` values of waiting images; every other code is a decision about the image."""
