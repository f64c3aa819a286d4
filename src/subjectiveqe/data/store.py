"""Pairs in a store, made by `prepare`.

The format is specified in `docs/store-format.md`. A store is a folder with an `index.json`, written last and
checksummed, and the pixels: raw `uint8` arrays in LMDB (`data.mdb`), or PNG files in `gt/` and `lq/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..errors import ImageError, StoreError
from ..files import write_text
from ..images import RGB
from ..processes import ForkedLock
from .pairs import FilePairs, PairInfo, PairSet, pair_folders, rectangle

FORMAT = "subjectiveqe-pairs"
VERSION = 1
INDEX, JOURNAL, DATA = "index.json", "progress.jsonl", "data.mdb"


@dataclass(frozen=True)
class StoredPair:
    """One decoded picture in a store; `crc32` is of its raw array."""

    codec: str
    level: int
    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class StoredPicture:
    """One clean picture in a store with all that was made of it; `crc32` is of its raw array."""

    name: str
    height: int
    width: int
    crc32: int
    pairs: tuple[StoredPair, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> StoredPicture:
        """Reads back what `dataclasses.asdict` gave."""
        return cls(**{**entry, "pairs": tuple(StoredPair(**pair) for pair in entry["pairs"])})


@dataclass(frozen=True)
class StoreIndex:
    """All of a store but the pixels.

    Args:
        layout: "lmdb" or "png".
        settings: what the store was made with; only an equal run may continue it.
        pictures: sorted by name.
        skipped: file name and reason of each picture that could not be coded.
        data_bytes: size of `data.mdb`, or of all PNG files together; tells a store that was cut short.
    """

    layout: str
    settings: Mapping[str, Any]
    pictures: tuple[StoredPicture, ...]
    skipped: tuple[tuple[str, str], ...]
    data_bytes: int
    infos: tuple[PairInfo, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        chroma = self.settings.get("options", {}).get("chroma", "")
        infos = (
            PairInfo(picture.name, pair.codec, pair.level, pair.num_bytes, picture.height, picture.width, chroma)
            for picture in self.pictures
            for pair in picture.pairs
        )
        object.__setattr__(self, "infos", tuple(infos))


def open_pairs(path: Path, *, keeps_unread: bool = False) -> PairSet:
    """Opens a paired store, or a folder whose `lq/` and `gt/` hold pictures of the same names.

    Reads and checks header and index, not the pixels; that is `check_store`.

    Args:
        path: the store or the folder.
        keeps_unread: see `pair_folders`.
    Raises:
        StoreError: there is no store here, it is incomplete or cut short, or its header or index is damaged.
    """
    if not (path / INDEX).exists() and not (path / JOURNAL).exists() and (path / "lq").is_dir():
        return pair_folders(path / "lq", path / "gt", keeps_unread=keeps_unread)
    index = read_index(path)
    return LmdbPairs(path, index) if index.layout == "lmdb" else _png_pairs(path, index)


def files_of(pairs: PairSet) -> list[Path]:
    """The files that hold the pixels of a pair set; none of one in memory."""
    if isinstance(pairs, FilePairs):
        return [path for both in pairs.files for path in both]
    return [pairs.path / DATA] if isinstance(pairs, LmdbPairs) else []


def check_store(path: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Reads every pixel of a store and compares it with its checksum.

    Args:
        path: an LMDB or PNG store.
        progress: called with the number of pictures done and of all.
    Returns:
        Number of pairs, all of them sound.
    Raises:
        StoreError: something is damaged; names the first bad picture or pair.
    """
    index = read_index(path)
    pairs = LmdbPairs(path, index) if index.layout == "lmdb" else _png_pairs(path, index)
    number = 0
    for done, picture in enumerate(index.pictures, start=1):
        for which, pair in enumerate(picture.pairs):
            try:
                lq, gt = pairs.read(number)
            except ImageError as error:
                raise StoreError(f"{path}: {error}; make the store again") from None
            number += 1
            if which == 0 and crc32(gt) != picture.crc32:
                raise StoreError(f'{path}: pixels of the original "{picture.name}" are damaged; make the store again')
            if crc32(lq) != pair.crc32:
                what = f'"{picture.name}" ({pair.codec} {pair.level})'
                raise StoreError(f"{path}: pixels of {what} are damaged; make the store again")
        if progress:
            progress(done, len(index.pictures))
    return number


def crc32(pixels: RGB) -> int:
    """CRC-32 of the raw array in C order."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def read_index(path: Path) -> StoreIndex:
    """Reads and checks header and index of a store, and that its pixels are all there by size.

    Raises:
        StoreError: see `open_pairs`.
    """
    if not path.is_dir():
        raise StoreError(f'{path}: no such store; make it with "sqe prepare"')
    if not (path / INDEX).exists():
        raise StoreError(_why_not_complete(path))
    try:
        header = json.loads((path / INDEX).read_text(encoding="utf-8"))
        form, version = header["format"], header["version"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path / INDEX}: damaged header; make the store again") from None
    if form != FORMAT:
        raise StoreError(f'{path / INDEX}: format "{form}", expected "{FORMAT}"; make the store again')
    if version != VERSION:
        raise StoreError(f"{path}: format version {version}, this program reads {VERSION}; make the store again")
    content = header.get("content")
    if header.get("blake2b") != _digest(content):
        raise StoreError(f"{path / INDEX}: the index does not fit its checksum; make the store again")
    index = StoreIndex(
        layout=content["layout"],
        settings=content["settings"],
        pictures=tuple(map(StoredPicture.from_json, content["pictures"])),
        skipped=tuple((name, reason) for name, reason in content["skipped"]),
        data_bytes=content["data_bytes"],
    )
    found = size_of_data(path, index.layout, index.pictures)
    if found != index.data_bytes:
        what = f"{found} bytes of pixels, the index says {index.data_bytes}"
        raise StoreError(f"{path}: cut short or changed, {what}; copy or make the store again")
    return index


def write_index(path: Path, index: StoreIndex) -> None:
    """Writes the index of a store whose pixels are all on the disk; from here on the store is complete."""
    content = asdict(index)
    del content["infos"]
    header = {"format": FORMAT, "version": VERSION, "blake2b": _digest(content), "content": content}
    write_text(path / INDEX, json.dumps(header) + "\n")


def size_of_data(path: Path, layout: str, pictures: Sequence[StoredPicture]) -> int:
    """Bytes on the disk of all pixels of a store; a missing file counts nothing."""
    files = [path / DATA] if layout == "lmdb" else [file for picture in pictures for file in png_files(path, picture)]
    return sum(file.stat().st_size for file in files if file.exists())


def png_files(path: Path, picture: StoredPicture) -> list[Path]:
    """Files of one picture in a PNG store: its original, then one per pair."""
    names = [f"{picture.name}__{pair.codec}-{pair.level}.png" for pair in picture.pairs]
    return [path / "gt" / f"{picture.name}.png", *(path / "lq" / name for name in names)]


def lmdb_keys(picture: StoredPicture) -> list[bytes]:
    """Keys of one picture in LMDB: its original, then one per pair."""
    keys = [f"gt/{picture.name}", *(f"lq/{picture.name}/{pair.codec}/{pair.level}" for pair in picture.pairs)]
    return [os.fsencode(key) for key in keys]


class LmdbPairs:
    """Pairs in LMDB; a crop is a view on the memory map, so it costs no decoding and, until it is used, no reading.

    The file is opened at the first crop, in the process that crops: LMDB must not be carried over a fork.
    """

    def __init__(self, path: Path, index: StoreIndex) -> None:
        self.infos: Sequence[PairInfo] = index.infos
        self.path = path
        self._keys = [(keys[0], lq_key) for keys in map(lmdb_keys, index.pictures) for lq_key in keys[1:]]
        self._map: _Map | None = None

    def __len__(self) -> int:
        return len(self.infos)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def read(self, index: int) -> tuple[RGB, RGB]:
        """Gives views on the whole pictures `lq` and `gt`, uint8, (H, W, 3), read-only."""
        if self._map is None or self._map.pid != os.getpid():
            self._map = _open_map(self.path)
        gt_key, lq_key = self._keys[index]
        shape = (self.infos[index].height, self.infos[index].width, 3)
        return self._map.array(lq_key, shape), self._map.array(gt_key, shape)

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> tuple[RGB, RGB]:
        """Gives views on the same rectangle of `lq` and `gt`, read-only."""
        return rectangle(self.read(index), top, left, height, width)


class _Map:
    """The open LMDB file of one store in one process."""

    def __init__(self, path: Path) -> None:
        import lmdb

        self.pid = os.getpid()
        try:
            # No lock: a complete store is never written again. Read-ahead stays on: a crop touches one page in each
            # of 128 rows that lie close together, which without it are 128 separate reads from a cold disk.
            self.env = lmdb.open(str(path), readonly=True, lock=False, create=False)
            self.txn = self.env.begin(buffers=True)
        except lmdb.Error as error:
            raise StoreError(f"{path / DATA}: cannot be opened ({error}); make the store again") from None
        self.path = path

    def array(self, key: bytes, shape: tuple[int, int, int]) -> RGB:
        import lmdb

        try:
            buffer = self.txn.get(key)
        except lmdb.Error as error:
            raise StoreError(f"{self.path / DATA}: damaged ({error}); make the store again") from None
        if buffer is None or len(buffer) != shape[0] * shape[1] * shape[2]:
            found = "nothing" if buffer is None else f"{len(buffer)} bytes"
            what = f'{shape[0]}x{shape[1]}x{shape[2]} bytes under "{os.fsdecode(key)}", found {found}'
            raise StoreError(f"{self.path / DATA}: damaged, expected {what}; make the store again")
        return np.asarray(_Held(self, np.frombuffer(buffer, np.uint8).reshape(shape)))


class _Held:
    """Array data that keeps its memory map open: LMDB's own buffers dangle once the environment is closed."""

    def __init__(self, owner: _Map, array: RGB) -> None:
        self._owner = owner
        self.__array_interface__ = array.__array_interface__


_maps: WeakValueDictionary[tuple[int, int], _Map] = WeakValueDictionary()
"""By device and inode: LMDB refuses to open the same file twice in one process."""
_opening = ForkedLock()


def _open_map(path: Path) -> _Map:
    try:
        stat = (path / DATA).stat()
    except OSError as error:
        raise StoreError(f"{path / DATA}: cannot be opened ({error.strerror}); make the store again") from None
    key = (stat.st_dev, stat.st_ino)
    with _opening:
        held = _maps.get(key)
        if held is not None and held.pid != os.getpid():
            held.env.close()  # inherited over a fork: lmdb only forgets it here, the parent's map stays as it is
            held = None
        if held is None:
            held = _maps[key] = _Map(path)
    return held


def _png_pairs(path: Path, index: StoreIndex) -> FilePairs:
    files = []
    for picture in index.pictures:
        gt, *lqs = png_files(path, picture)
        files += [(lq, gt) for lq in lqs]
    return FilePairs(tuple(files), index.infos)


def _why_not_complete(path: Path) -> str:
    if not (path / JOURNAL).exists() and (path / "lq").is_dir():
        return f"{path}: two plain folders, no store of its own; there are no checksums to check"
    if not (path / JOURNAL).exists():
        return (
            f'{path}: not a paired store ({INDEX} is missing); make one with "sqe prepare", '
            'or compare two folders by "sqe evaluate --lq DIR --gt DIR"'
        )
    lines = (path / JOURNAL).read_bytes().split(b"\n")[:-1]  # what follows the last line feed was cut off
    try:
        total = json.loads(lines[0])["settings"]["num_sources"]
    except (ValueError, KeyError, TypeError, IndexError):
        return f'{path}: incomplete, and {JOURNAL} is damaged; delete the folder and run "sqe prepare" again'
    done = f"{len(lines) - 1} of {total} images"
    return f'{path}: {done}, the run that wrote it was interrupted; run "sqe prepare" again to finish it.'


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
