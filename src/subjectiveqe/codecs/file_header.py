"""What AVIF, HEIC, JPEG and WebP files say of how coarsely they were quantised."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError
from ..formats.jpegsegments import quantisers
from ..formats.webpchunks import chunks
from ..images import sniff_format
from .bitstream import Fields, Headers, SliceQps, headers_logged
from .coarseness import FAMILIES, avif_step, coarseness, jpeg_steps, of_family, vp8_step

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_TUNED = (0, 16, 32, 48, 60, 76, 92, 108, 136, 148, 196, 216, 236, 249, 255)
_NOMINAL = (0, 12, 24, 36, 52, 64, 76, 88, 112, 128, 176, 200, 228, 240, 255)
"""Where libaom is tuned for pictures ("iq", which libavif asks for) it writes a higher index than a quality stands for,
and a matrix that is finer than flat for what is seen most. Read off files of libavif 1.4.2 at qualities 5 to 95."""

_CHROMA = {1: "420", 2: "422", 3: "444"}
"""What `chroma_format_idc` stands for."""


def file_coarseness(path: Path, num: int = len(FAMILIES)) -> tuple[float, ...] | None:
    """Reads the quantiser out of a picture's file.

    In AVIF that is base_q_idx of the first frame header, in HEIC the QP of the first slice. Of a picture that consists
    of tiles, as those of phones do, it is the mean over the tiles. In JPEG it is the quality for which libjpeg makes
    such a table for luma, or the nearest one to that of a camera, Photoshop or mozjpeg. In WebP it is the mean of what
    its first frame's segments have, weighted by how much of the picture they are.

    Args:
        path: a picture; of other formats than these nothing is known.
        num: how many of `coarseness.FAMILIES` the network is told.
    Returns:
        `num` numbers, as `coarseness.coarseness` gives them; None where the file says nothing.
    """
    try:
        kind = sniff_format(path)
    except ImageError:
        return None
    if kind == "jpeg":
        quality = _jpeg_quality(path)
        return coarseness("jpeg", quality, num) if quality and "jpeg" in FAMILIES[:num] else None
    if kind == "webp":
        return _of_webp(path, num)
    if kind not in ("avif", "heic"):
        return None
    said = [told for fields in _frame_headers(path) if (told := _coarseness_of(fields, num))]
    return tuple(np.mean(said, axis=0).tolist()) if said else None


_ZIGZAG = sorted(np.ndindex(8, 8), key=lambda place: (sum(place), place[0] if sum(place) % 2 else place[1]))
"""Vertical and horizontal frequencies in the order of a table (ITU-T T.81, figure A.6)."""

_TELLING = [number for number, frequencies in enumerate(_ZIGZAG) if min(frequencies) < 2]
"""By whose steps tables are compared: those of low frequencies across or down, of which photos have most. By all 64
mozjpeg would seem coarser than its pictures look, by 0.06 to 0.08 on the mean of six photos (quality 60 to 85), and by
the lowest ten Photoshop's "web_low" would, by 0.05; told so, they lost PSNR and SSIMULACRA2."""


def _jpeg_quality(path: Path) -> int | None:
    with path.open("rb") as file:
        luma = quantisers(file).get(0, b"")
    if len(luma) != len(_ZIGZAG):  # damaged, or of steps beyond 255
        return None

    def distance(quality: int) -> tuple[int, bool]:
        theirs = _luma_tables()[quality]
        return abs(sum(theirs[number] - luma[number] for number in _TELLING)), theirs != luma

    return min(_luma_tables(), key=distance)


@cache
def _luma_tables() -> dict[int, bytes]:
    """What libjpeg makes of the qualities from 100 down to 1."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG", quality=50)
    at_50 = np.frombuffer(quantisers(file)[0], np.uint8)
    return {quality: jpeg_steps(at_50, quality).astype(np.uint8).tobytes() for quality in range(100, 0, -1)}


def _of_webp(path: Path, num: int) -> tuple[float, ...] | None:
    import av

    data = _vp8(path)
    if data is None or "webp" not in FAMILIES[:num]:
        return None
    size = struct.pack("<HH", *(int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (6, 8)))
    header = b"DKIF\0\0 \0VP80" + size + struct.pack("<IIII", 25, 1, 1, 0)
    ivf = header + struct.pack("<IQ", len(data), 0) + data
    try:
        with headers_logged(), av.open(io.BytesIO(ivf), "r", format="ivf") as file:
            [stream] = file.streams.video
            fields = dict(Headers(stream).of_packet(next(file.demux(stream))))
    except (av.FFmpegError, ValueError, StopIteration):
        return None
    if "base_qindex" not in fields:
        return None
    indices, shares = [fields["base_qindex"]], [1.0]
    if "segment_feature_mode" in fields:  # segments and probabilities that are not there have 0 and 255
        base = 0 if fields["segment_feature_mode"] else fields["base_qindex"]
        indices = [min(max(base + fields.get(f"segment_qp[{place}]", 0), 0), 127) for place in range(4)]
        first, low, high = (fields.get(f"segment_probs[{place}]", 255) / 255 for place in range(3))
        shares = [first * low, first * (1 - low), (1 - first) * high, (1 - first) * (1 - high)]
    # libwebp takes a power of 1 - index / 127 for each segment, so that its logarithms are what has a mean.
    mean = np.average(np.log(np.maximum(1 - np.array(indices) / 127, 1e-3)), weights=shares)
    return of_family("webp", vp8_step(127 * (1 - float(np.exp(mean)))), num)


def _vp8(path: Path) -> bytes | None:
    """The first frame that is coded with loss, as VP8 has it; None where there is none."""
    with path.open("rb") as file:
        for name, length in chunks(file):
            if name == b"VP8 ":
                data = file.read(length)
                return data if len(data) == length > 10 else None
    return None


def _coarseness_of(found: Fields, num: int) -> tuple[float, ...] | None:
    fields = dict(reversed(found))  # the first of each name
    if "base_q_idx" in fields:
        if "avif" not in FAMILIES[:num]:
            return None
        index = float(fields["base_q_idx"])
        if fields.get("using_qmatrix"):
            index = float(np.interp(index, _TUNED, _NOMINAL))
        return of_family("avif", avif_step(index), num)
    if qps := SliceQps([]).read(found):
        return coarseness("hevc", qps[0], num, _CHROMA.get(fields.get("chroma_format_idc", 0), ""))
    return None


def _frame_headers(path: Path) -> list[Fields]:
    """The fields, for each tile; nothing for what FFmpeg cannot read."""
    import av

    headers: dict[int, Fields] = {}
    try:
        with headers_logged(), path.open("rb") as data, av.open(data, "r") as file:
            tiles = {tile.index: tile for tile in _largest_picture(file.streams.video)}
            for packet in file.demux(*tiles.values()):
                if (index := packet.stream.index) in headers:
                    continue
                reader = Headers(tiles[index])
                headers[index] = reader.of_stream + reader.of_packet(packet)
                if len(headers) == len(tiles):
                    break
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return []
    return list(headers.values())


def _largest_picture(streams: Sequence[VideoStream]) -> list[VideoStream]:
    """The tiles of the largest picture in a file, or it itself: not a thumbnail's, nor a gain or depth map's."""
    pictures: dict[object, list[VideoStream]] = {}
    for stream in streams:
        is_tile = bool(stream.disposition & stream.disposition.dependent)
        alike = (stream.format and stream.format.name, stream.width, stream.height)
        pictures.setdefault(alike if is_tile else stream.index, []).append(stream)
    return max(pictures.values(), key=lambda tiles: len(tiles) * tiles[0].width * tiles[0].height)
