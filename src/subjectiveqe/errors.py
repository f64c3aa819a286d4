"""The errors this package raises on purpose.

    SubjectiveQEError            catch this one for all of them
    |- ConfigError               a recipe, option or argument that cannot be used
    |- ImageError                a picture that cannot be read or written
    |- ShapeError                arrays whose shapes do not fit together
    |- CodecError                an encoder or decoder that is missing or failed
    |- StoreError                a paired store that is incomplete or damaged
    |- ModelError                a checkpoint or model file of another network, or damaged
    |  `- OutOfMemoryError       a network that does not fit into memory (`enhancing.enhancer`)
    |- DivergedError             a training run that has gone astray (`training.step`)
    `- WeightsError              weights of a judge or loss that are not on this machine

Every message is one line: what was expected, what was found, where, and what to do next.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors where there is no room for a file."""


class SubjectiveQEError(Exception):
    """Root of all errors of this package."""


class ConfigError(SubjectiveQEError):
    """A recipe, option or argument that cannot be used."""


def unknown(
    what: str, word: object, known: Iterable[str], kind: type[SubjectiveQEError] = ConfigError
) -> SubjectiveQEError:
    """An error for an unknown name, of some kind; suggests the nearest known one, or lists all."""
    names, asked = list(known), str(word).lower()
    begun = [name for name in names if name.startswith(asked)] if asked else []
    close = begun[:1] if len(begun) == 1 else get_close_matches(asked, names, n=1)
    return kind(
        f'unknown {what} "{word}"; ' + (f'did you mean "{close[0]}"?' if close else f"known: {', '.join(names)}")
    )


class ImageError(SubjectiveQEError):
    """A picture that cannot be read or written."""


class ShapeError(SubjectiveQEError, ValueError):
    """Arrays whose shapes do not fit together."""


class CodecError(SubjectiveQEError):
    """An encoder or decoder that is missing or failed, or a level out of its range."""


class StoreError(SubjectiveQEError):
    """A paired store that is incomplete, damaged or of another format."""


class ModelError(SubjectiveQEError):
    """A checkpoint or model file that is damaged or holds another network."""


class WeightsError(SubjectiveQEError):
    """Weights of a judge or a loss that are not on this machine."""


PICTURE_FAILED = (SubjectiveQEError, OSError, MemoryError)
"""What one picture among many may fail by; the others are still to be done."""


def reason_of(error: BaseException) -> str:
    """One line on why a picture failed; Python's own want of memory has no message."""
    return str(error) or ("not enough memory" if isinstance(error, MemoryError) else type(error).__name__)


def not_written(path: Path, error: Exception) -> str:
    """Says that a file could not be written and why; asks about the disk unless the system names another cause."""
    number = getattr(error, "errno", None)
    cause = getattr(error, "strerror", None) or first_line(error)
    return f"{path}: cannot be written ({cause}){'; is the disk full?' if number in (None, *FULL_DISK) else ''}"


def first_line(error: Exception) -> str:
    """The first line of a library's message that names the cause."""
    # pyvips says first which of its own calls failed, and why in the detail.
    lines = (getattr(error, "detail", "") or str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
