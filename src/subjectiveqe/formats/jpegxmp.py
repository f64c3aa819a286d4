"""XMP of more than 64 KiB in a JPEG file, of which libvips reads and writes the first segment only.

Source: Adobe, "XMP Specification Part 3: Storage in Files", sec. 1.1.3.1 (ExtendedXMP).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from .jpegsegments import application, read_application

_NAME, _REST = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_MOST_BYTES, _PIECE_BYTES = 65502, 65400
_DIGEST_BYTES = 32

_PACKET = re.compile(rb"<\?xpacket[^>]*\?>")
_LINK = re.compile(
    rb"""\sxmpNote:HasExtendedXMP\s*=\s*["'](\w+)["']|<xmpNote:HasExtendedXMP>(\w+)</xmpNote:HasExtendedXMP>"""
)
_GAIN_MAP = re.compile(
    rb"""\shdrgm:\w+\s*=\s*(?:"[^"]*"|'[^']*')|<hdrgm:(\w+)\b[^>]*(?:/>|(?<!/)>.*?</hdrgm:\1>)""", re.DOTALL
)
_INSIDE = re.compile(rb"<rdf:RDF\b[^>]*>(.*)</rdf:RDF>", re.DOTALL)
_LINKING = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/>\
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def xmp_segments(xmp: bytes) -> list[bytes]:
    """XMP as the segments of a JPEG file; what is too long for one lies as a whole in further ones."""
    if len(xmp) > _MOST_BYTES:
        xmp = _PACKET.sub(b"", xmp).strip()  # and the room that it leaves for edits
    if len(xmp) <= _MOST_BYTES:
        return [application(1, _NAME + xmp)]
    digest = hashlib.md5(xmp, usedforsecurity=False).hexdigest().upper().encode()
    return [
        application(1, _NAME + _LINKING % digest),
        *(
            application(1, _REST + digest + struct.pack(">II", len(xmp), start) + xmp[start : start + _PIECE_BYTES])
            for start in range(0, len(xmp), _PIECE_BYTES)
        ),
    ]


def read_extension(path: Path) -> tuple[bytes, ...]:
    """The further segments of XMP in a JPEG file, each whole."""
    return tuple(application(1, _REST + content) for content in read_application(path, 1, _REST))


def without_gain_map(xmp: bytes) -> bytes:
    """Takes out the properties that announce a gain map."""
    return _GAIN_MAP.sub(b"", xmp)


def join_xmp(xmp: bytes, segments: Iterable[bytes]) -> bytes | None:
    """Puts the properties of further segments into the first one's; None where that does not give whole XMP."""
    link = _LINK.search(xmp)
    if not link:
        return None
    digest, start = link[1] or link[2], 4 + len(_REST)
    contents = [one[start + _DIGEST_BYTES :] for one in segments if one[start:].startswith(digest)]
    with suppress(struct.error, ValueError, ElementTree.ParseError):  # damaged
        pieces = sorted((*struct.unpack_from(">II", content), content[8:]) for content in contents)
        rest = b"".join(piece for _, _, piece in pieces)
        inside = _INSIDE.search(rest)
        head, end, tail = _LINK.sub(b"", xmp).rpartition(b"</rdf:RDF>")
        if inside and end and [len(rest)] * len(pieces) == [length for length, _, _ in pieces]:
            joined = head + inside[1] + end + tail
            ElementTree.fromstring(joined.strip(b"\0 \n\r\t"))  # whose names may be bound in one of the two only
            return joined
    return None
