"""The three kinds of failure, told apart because they are fixed by different people.

A wrong setting is fixed by whoever starts imgflow, a rejected image by whoever uploaded it, and
trouble outside by waiting. Only `Rejected` is ever a verdict about an image.
"""

import errno

from imgflow.foreign_text import visible

# What the operating system says of what it was handed, rather than of itself.
_ABOUT_ARGUMENTS = frozenset({errno.EINVAL, errno.EDOM, errno.ERANGE, errno.EOVERFLOW})


def is_of_machine(error: BaseException) -> bool:
    """Whether an error says something about this machine rather than about what was worked on.

    Disk full, too many open files, no memory left beside an image's own limit, a part of the
    installation that cannot be loaded. Decoders raise `OSError` about bytes too, without a number
    of the operating system.
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

    Its text may quote keys, files and servers of strangers, and goes to terminals and logs.
    """

    def __str__(self) -> str:
        return visible(super().__str__(), keep="\n")


class SettingsError(ImgflowError):
    """A setting is missing or wrong; the text is one sentence that names it and the fix."""


class NotOurs(SettingsError):
    """The output location belongs to another catalogue, whose outputs are not ours to touch."""


class TooMany(ImgflowError):
    """So much would be deleted or made again that a mistake is more likely; nothing was."""


class BadKey(ImgflowError):
    """Nothing can be put into the source under this key; another key is to be chosen."""


class Rejected(ImgflowError):
    """The object itself cannot become an image, now or at a rerun, until it changes.

    Attributes:
        code: short machine-readable name of the cause, such as `truncated` or `too_many_pixels`.
        reason: one sentence for a person, with the numbers in it.
    """

    def __init__(self, code: str, reason: str) -> None:
        reason = visible(reason)
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Withheld(Rejected):
    """The store keeps the bytes back until someone acts: they are archived, or encrypted.

    Nothing is wrong with the image, so what was made of this upload before stays.
    """


class Trouble(ImgflowError):
    """Something outside does not answer (object store, database); a later attempt may succeed.

    Attributes:
        code: what an image that is kept waiting by it says as its `reason_code`.
    """

    code = "trouble"


class Unreadable(Trouble):
    """This object may not be read, while its store answers: a policy or file mode is to be fixed.

    Says nothing about other objects.
    """

    code = "unreadable"


class OutputFailed(Trouble):
    """An output that an installed package makes raised an error; the image is tried again later.

    No verdict about the image: the mistake may be the package's, or its service may be away.
    """

    code = "output_failed"


class SourceChanged(Trouble):
    """The object is no longer the one that was announced: overwritten or deleted in between."""

    code = "changing"


TROUBLE_CODES = (Trouble.code, Unreadable.code, OutputFailed.code, SourceChanged.code)
"""What images that are kept waiting say as their `reason_code`; every other code is a verdict."""
