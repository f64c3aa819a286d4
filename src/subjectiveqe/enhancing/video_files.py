"""What files of videos are called, and how the frames of results are coded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, unknown
from ..files import list_files

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp")
"""What is taken for a video."""

_OF_TYPESCRIPT, _SYNC = (".ts", ".mts"), b"G"

_RESULTS = (".mp4", ".m4v", ".mov", ".mkv")
_HOLDS_ALL, _INSTEAD = ".mkv", {".3gp": ".mov"}
"""What a result is without a name, if not as its source: Matroska does not hold the sound (AMR) of phones' old clips.
"""
ENCODERS = {"x264": ("libx264", 16), "x265": ("libx265", 18), "ffv1": ("ffv1", 0)}
"""Name of the encoder and its usual CRF."""


@dataclass(frozen=True)
class Coding:
    """How frames are coded.

    Attributes:
        codec: "x264", "x265" or "ffv1" (lossless, .mkv).
        crf: 0..51, lower is better; None for 16 (x264) and 18 (x265).
    """

    codec: str = "x264"
    crf: int | None = None

    def __post_init__(self) -> None:
        if self.codec not in ENCODERS:
            raise unknown("video codec", self.codec, ENCODERS)
        if self.crf is not None and not 0 <= self.crf <= 51:
            raise ConfigError(f"crf {self.crf} is out of range, expected 0 to 51")
        if self.crf is not None and self.codec == "ffv1":
            raise ConfigError("ffv1 is lossless and takes no crf")


def is_video(path: Path) -> bool:
    """Whether a name is one of a video."""
    return path.suffix.lower() in SUFFIXES


def list_videos(folder: Path, recursive: bool = False) -> list[Path]:
    """Paths of the videos in a folder, sorted by name; what is hidden or cannot be read is left out, and TypeScript."""
    found = list_files(folder, SUFFIXES, recursive, unread=lambda _: None)
    return [path for path in found if path.suffix.lower() not in _OF_TYPESCRIPT or _is_mpeg_ts(path)]


def _is_mpeg_ts(path: Path) -> bool:
    """Whether a file begins with the sync byte of MPEG-TS, in cameras' files behind a time stamp of 4 bytes."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(5)
        return head[:1] == _SYNC or (path.suffix.lower() == ".mts" and head[4:] == _SYNC)
    return False


def suffix_for(source: Path, coding: Coding) -> str:
    """The suffix of a result that has no name yet: the source's where that can be written."""
    if coding.codec == "ffv1":
        return _HOLDS_ALL
    suffix = source.suffix.lower()
    return source.suffix if suffix in _RESULTS else _INSTEAD.get(suffix, _HOLDS_ALL)


def check_name(target: Path, coding: Coding) -> None:
    """Raises ConfigError where a result's name is none of a video, or of one that does not hold what is asked for."""
    suffix = target.suffix.lower()
    if suffix not in _RESULTS:
        named = f"cannot write {target.suffix}" if suffix else "expected the name of a video"
        raise ConfigError(f"{target}: {named}; known: {', '.join(_RESULTS)}")
    if coding.codec == "ffv1" and suffix != _HOLDS_ALL:
        raise ConfigError(f"{target}: {suffix} does not hold ffv1; name the result {_HOLDS_ALL}")
