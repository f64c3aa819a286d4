"""Chunks of a PNG file that libvips reads or writes otherwise than they are, or not at all.

Text (title, author, a program's settings) is carried as the bytes it is: libvips writes all of it as Latin-1.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..files import atomic_path

_KINDS = (b"tEXt", b"zTXt", b"iTXt")
_ELSEWHERE = (b"XML:com.adobe.xmp", b"Raw profile type")
"""Keywords of what is XMP, EXIF or a profile in other words."""

_IN_WORDS = {b"exif": "exif-data", b"APP1": "exif-data", b"xmp": "xmp-data", b"iptc": "iptc-data"}
_START_OF_XMP = b"http://ns.adobe.com/xap/1.0/\0"

_HEADER_BYTES = 8 + 25
"""Signature and IHDR, behind which text may stand."""

_OF_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
"""White, red, green and blue as cHRM has them, in 100,000ths."""

_MOST_BYTES = 2**24
"""Of one chunk, squeezed or not; longer ones are left out."""


def read_texts(path: Path) -> tuple[bytes, ...]:
    """The text chunks of a PNG file, each whole; none from where it is damaged."""
    with path.open("rb") as file:
        return tuple(chunk for chunk in _text_chunks(file) if not keyword(chunk).startswith(_ELSEWHERE))


def read_chunk(path: Path, kind: bytes) -> bytes | None:
    """What the first chunk of a kind before the pixels of a PNG file says; None where there is none."""
    with path.open("rb") as file:
        for name, length in _chunks(file):
            if name == b"IDAT":
                break
            if name == kind and length <= _MOST_BYTES:
                return file.read(length)
    return None


def read_behind_pixels(path: Path) -> dict[str, bytes]:
    """EXIF and XMP that stand behind the pixels of a PNG file, where libvips does not look, by its names for them."""
    found: dict[str, bytes] = {}
    with path.open("rb") as file:
        is_behind = False
        for name, length in _chunks(file):
            is_behind |= name == b"IDAT"
            if not is_behind or length > _MOST_BYTES:
                continue
            if name == b"eXIf":
                found["exif-data"] = file.read(length)
            elif name == b"iTXt" and (xmp := _xmp(file.read(length))):
                found["xmp-data"] = xmp
    return found


def read_profiles_in_words(path: Path) -> dict[str, bytes]:
    """EXIF, XMP and IPTC that a PNG file has as texts of hexadecimal digits, by libvips' names for them.

    Source: ImageMagick, `coders/png.c`, as it and others wrote them before there was eXIf: a name, the number of bytes
    and the bytes, in lines.
    """
    found = {}
    with path.open("rb") as file:
        for chunk in _text_chunks(file):
            name, _, text = chunk[8:-4].partition(b"\0")
            kind = name.removeprefix(_ELSEWHERE[1]).strip()
            if kind not in _IN_WORDS or not name.startswith(_ELSEWHERE[1]):
                continue
            digits = b"".join((_inflated(text[1:]) if chunk[4:8] == b"zTXt" else text).split()[2:])
            with suppress(ValueError):  # of something else
                content = bytes.fromhex(digits.decode("ascii", errors="replace"))
                if content.startswith(_START_OF_XMP):
                    found["xmp-data"] = content.removeprefix(_START_OF_XMP)
                elif content:
                    found[_IN_WORDS[kind]] = content
    return found


def _inflated(squeezed: bytes) -> bytes:
    """What was squeezed by zlib, whole; nothing where it is damaged or longer than a chunk may be."""
    with suppress(zlib.error):
        one = zlib.decompressobj()
        plain = one.decompress(squeezed, _MOST_BYTES)
        return plain if one.eof else b""
    return b""


def _xmp(content: bytes) -> bytes:
    """What an iTXt chunk says, if that is XMP: behind its keyword, two flags, a language and a translated keyword."""
    name, _, rest = content.partition(b"\0")
    if name != _ELSEWHERE[0] or len(rest) < 2:
        return b""
    text = rest[2:].split(b"\0", 2)[-1]
    return _inflated(text) if rest[0] else text


def replace_chunk(path: Path, kind: bytes, data: bytes) -> None:
    """Writes over the first chunk of a kind before the pixels, where there is one as long."""
    with path.open("rb+") as file:
        for name, length in _chunks(file):
            if name == b"IDAT":
                break
            if name == kind and length == len(data):
                file.seek(-8, 1)
                file.write(png_chunk(kind, data))
                break


def read_gamma(path: Path) -> float | None:
    """What a PNG file says of its gamma in place of a profile; None where it says nothing or that of sRGB."""
    told = read_chunk(path, b"gAMA")
    gamma = int.from_bytes(told or b"", "big") / 1e5
    return gamma if told and abs(gamma - 0.45455) > 0.005 else None


def read_primaries(path: Path) -> bool:
    """Whether a PNG file says by its primaries, in place of a profile, that its colours are not those of sRGB."""
    told = read_chunk(path, b"cHRM") or b""
    if len(told) != 32 or read_chunk(path, b"sRGB") is not None:
        return False
    return any(abs(a - b) > 1000 for a, b in zip(struct.unpack(">8I", told), _OF_SRGB, strict=True))


def keyword(chunk: bytes) -> bytes:
    """What a text is about."""
    return chunk[8:].partition(b"\0")[0]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def add_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Puts chunks into a PNG file, before its pixels; it is written anew."""
    with atomic_path(path) as aside, path.open("rb") as old, aside.open("wb") as new:
        new.write(old.read(_HEADER_BYTES))
        new.writelines(chunks)
        shutil.copyfileobj(old, new, 2**20)


def _text_chunks(file: BinaryIO) -> Iterator[bytes]:
    for kind, length in _chunks(file):
        if kind in _KINDS and length <= _MOST_BYTES:
            file.seek(-8, 1)
            chunk = file.read(8 + length + 4)  # with its head and checksum
            if len(chunk) < 8 + length + 4:
                return
            yield chunk


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk, with the file at its content; it may be read or left."""
    place = 8
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        place += 8 + length + 4
