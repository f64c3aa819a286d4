"""Writing a store picture by picture, so that what is finished stays finished whatever happens next."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..images import RGB
from .store import (
    DATA,
    FORMAT,
    JOURNAL,
    VERSION,
    StoredPicture,
    StoreIndex,
    lmdb_keys,
    size_of_data,
    write_index,
)

FIRST_MAP_BYTES = 1 << 26
"""Address space for LMDB, which is doubled whenever it is full: Windows makes the file as long as that at once."""


class StoreWriter:
    """An unfinished store: a journal with a line per finished picture, and the pixels; the index is written last.

    A picture's line is written after its pixels have reached the disk, so that a picture with a line is finished
    whatever happens next. A line that was cut off by a crash counts for nothing.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self.settings = out, settings
        self.finished: dict[str, StoredPicture] = {}
        self._journal = (out / JOURNAL).open("a+b")
        try:
            self._continue_journal()
            for leftover in out.glob("[gl][tq]/.*.png"):
                leftover.unlink()  # a PNG that was being written when an earlier run was killed
            self._env = _open_for_writing(out) if settings["layout"] == "lmdb" else None
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files; Windows deletes none that is open."""
        if self._env is not None:
            self._env.close()
        self._journal.close()

    def add(self, picture: StoredPicture, arrays: Sequence[RGB]) -> None:
        """Keeps a finished picture."""
        if self._env is not None:
            _put(self._env, dict(zip(lmdb_keys(picture), arrays, strict=True)))
        self._write_line(asdict(picture))
        self.finished[picture.name] = picture

    def complete(self, skipped: tuple[tuple[str, str], ...]) -> StoreIndex:
        """Writes the index, which makes the store complete."""
        used = _bytes_used(self._env) if self._env is not None else None
        self.close()
        if used is not None:
            os.truncate(self.out / DATA, used)
        pictures = tuple(sorted(self.finished.values(), key=lambda picture: picture.name))
        layout = str(self.settings["layout"])
        num_bytes = size_of_data(self.out, layout, pictures)
        index = StoreIndex(layout, self.settings, pictures, skipped, num_bytes)
        write_index(self.out, index)
        (self.out / JOURNAL).unlink()
        return index

    def _continue_journal(self) -> None:
        self._journal.seek(0)
        text = self._journal.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._journal.truncate(len(whole))
        lines = whole.splitlines()
        if not lines:
            self._write_line({"format": FORMAT, "version": VERSION, "settings": self.settings})
            return
        try:
            header = json.loads(lines[0])
            settings, version = header["settings"], header["version"]
            pictures = [StoredPicture.from_json(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self.out / JOURNAL}: damaged; delete {self.out} and run again") from None
        if version != VERSION:
            raise StoreError(f"{self.out}: format version {version}, expected {VERSION}; delete it and run again")
        refuse_other_settings(self.out, settings, self.settings)
        self.finished = {picture.name: picture for picture in pictures}

    def _write_line(self, value: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(value).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())


def refuse_other_settings(out: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises StoreError where a store, or what there is of one, was made otherwise than is wanted now."""
    different = [key for key in wanted if there.get(key) != wanted[key]]
    if not different:
        return
    key = different[0]
    before: Any = there.get(key)
    now: Any = wanted[key]
    if key == "options":  # an encoder has many; those that differ say enough
        differ = {name for name in {**before, **now} if before.get(name) != now.get(name)}
        before, now = ({name: side[name] for name in sorted(differ & side.keys())} for side in (before, now))
    if key == "sources_sha256" and key not in there:
        what = "pictures of which it has no checksum (by an earlier version), so that it cannot be gone on with"
    elif key in ("sources_sha256", "num_sources"):
        what = f"{there.get('num_sources')} pictures, other than the {wanted['num_sources']} there are now"
    else:
        what = f"{key} {json.dumps(before)}, not {json.dumps(now)}"
    raise StoreError(f"{out}: was made from {what}; choose another name or delete it")


def _open_for_writing(out: Path) -> Any:
    import lmdb

    try:
        return lmdb.open(str(out), map_size=FIRST_MAP_BYTES, lock=False)  # the folder is held
    except lmdb.Error as error:
        raise StoreError(f"{out / DATA}: cannot be opened ({error}); delete {out} and run again") from None


def _put(env: Any, arrays: Mapping[bytes, RGB]) -> None:
    """Keeps all or nothing; OSError where the disk does not take it."""
    import lmdb

    try:
        while not _fit(env, arrays):
            env.set_mapsize(2 * env.info()["map_size"])
    except lmdb.Error as error:
        raise OSError(str(error)) from None


def _fit(env: Any, arrays: Mapping[bytes, RGB]) -> bool:
    """Keeps all, or nothing where the map is full."""
    import lmdb

    try:
        with env.begin(write=True) as transaction:
            for key, array in arrays.items():
                transaction.put(key, array.data)
    except lmdb.MapFullError:
        return False
    return True


def _bytes_used(env: Any) -> int:
    """How much of its file an LMDB environment has pages in."""
    return (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
