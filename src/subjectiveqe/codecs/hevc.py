"""HEVC intra pictures through libx265 in PyAV, in memory, set up to stand in for HM-16.5 all-intra."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..color import rgb_to_ycbcr, ycbcr_to_rgb
from ..errors import CodecError
from ..images import RGB
from .base import InMemoryCodec, check_multiple
from .still import check_chroma

HM_LIKE: dict[str, str | int] = {
    "preset": "slow",
    "aq-mode": 0,  # one QP for all blocks, as HM; also keeps x265 from raising the chroma QP in 4:4:4
    "psy-rd": 0,
    "psy-rdoq": 0,
    "rd": 5,
    "rdoq-level": 1,  # decides most of it: 0 spends 11 % more bytes, 2 loses 0.3 dB and 9 % of LPIPS
    "tskip": 1,
    "tu-intra-depth": 3,
}
"""What makes libx265 decide as HM-16.5 does; measured in docs/codecs.md."""

HM_LIKE_444: dict[str, str | int] = {"cbqpoffs": 1, "crqpoffs": 1}
"""HM predicts chroma from luma in 4:4:4, x265 cannot: one QP more on chroma saves the bytes that this costs."""

_SETUP: dict[str, str | int] = {
    "keyint": 1,
    "ipratio": 1,  # otherwise an intra picture is coded at a lower QP than asked
    "info": 0,  # no text about the encoder in the bitstream: HM writes none, and it would count as bytes
    "pools": "none",
    "frame-threads": 1,  # with pools=none one thread: the same bits anywhere, and `prepare` runs a process per core
    "log-level": "none",
}


@dataclass(frozen=True)
class Hevc(InMemoryCodec):
    """One intra picture at a constant QP; BT.601 limited range, 8 bits.

    Sides must be multiples of 8 px, the smallest coding unit.

    Args:
        chroma: "444" or "420" (2x2 means down, linear interpolation up).
    """

    name = "hevc"
    level_name = "qp"
    level_range = (0, 51)
    chroma: str = "444"

    def __post_init__(self) -> None:
        check_chroma(self.name, self.chroma, ["444", "420"])

    def settings(self) -> dict[str, str]:
        """See `Codec.settings`; what libx265 is told belongs to it."""
        return super().settings() | {key: str(value) for key, value in self._options().items()}

    def encode(self, rgb: RGB, level: int) -> bytes:
        """Gives the HEVC bitstream (Annex B): parameter sets and one picture."""
        self.check(rgb, level)
        check_multiple(rgb, 8, self.name)
        return encode_planes(_to_planes(rgb_to_ycbcr(rgb), self.chroma), {**self._options(), **_SETUP, "qp": level})

    def _options(self) -> dict[str, str | int]:
        return {**HM_LIKE, **(HM_LIKE_444 if self.chroma == "444" else {})}

    def decode(self, data: bytes) -> RGB:
        """Decodes the first picture of an HEVC bitstream, 4:4:4 or 4:2:0."""
        return ycbcr_to_rgb(_from_planes(decode_planes(data)))


Planes = tuple[RGB, RGB, RGB]
"""Y, Cb and Cr, uint8, each (h, w)."""


def encode_planes(planes: Planes, options: dict[str, str | int]) -> bytes:
    """Encodes one picture given as Y, Cb and Cr with options of x265.

    Args:
        planes: all of one size for 4:4:4; Cb and Cr of half the height and width for 4:2:0.
        options: of x265; "preset" may be among them.
    Raises:
        CodecError: this PyAV has no libx265, or the encoder failed.
    """
    import av

    height, width = planes[0].shape
    pixels = "yuv444p" if planes[1].shape == planes[0].shape else "yuv420p"
    x265 = ":".join(f"{key}={value}" for key, value in options.items() if key != "preset")
    try:
        encoder = av.CodecContext.create("libx265", "w")
    except ValueError:  # what UnknownCodecError is derived from
        raise CodecError(
            "hevc: this PyAV was built without libx265; the wheels have it: "
            '"pip install --force-reinstall --only-binary av av"'
        ) from None
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixels
    encoder.framerate = Fraction(25)
    encoder.thread_count = 1
    encoder.options = {"preset": str(options.get("preset", "medium")), "x265-params": x265}
    frame = av.VideoFrame(width, height, pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values
        plane.update(padded.tobytes())
    try:
        packets = [*encoder.encode(frame), *encoder.encode(None)]
    except av.FFmpegError as error:
        raise CodecError(
            f"hevc: libx265 cannot encode {width}x{height} px ({error.strerror}); the shortest side it takes is 16 px"
        ) from None
    return b"".join(bytes(packet) for packet in packets)


def decode_planes(data: bytes) -> Planes:
    """Decodes the first picture of an HEVC bitstream to Y, Cb and Cr (CodecError where there is none)."""
    import av

    decoder = av.CodecContext.create("hevc", "r")
    decoder.thread_count = 1
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except (av.FFmpegError, ValueError) as error:
        raise CodecError(f"hevc: cannot decode {len(data)} bytes ({type(error).__name__})") from None
    if not frames or frames[0].format.name not in ("yuv444p", "yuv420p"):
        found = frames[0].format.name if frames else "none"
        raise CodecError(f"hevc: a picture in yuv444p or yuv420p expected in {len(data)} bytes, found {found}")
    y, cb, cr = (
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frames[0].planes
    )
    return y, cb, cr


def _to_planes(ycbcr: RGB, chroma: str) -> Planes:
    y, cb, cr = np.moveaxis(ycbcr, 2, 0)
    return (y, cb, cr) if chroma == "444" else (y, _halve(cb), _halve(cr))


def _from_planes(planes: Planes) -> RGB:
    y, cb, cr = planes
    return np.stack((y, cb, cr) if cb.shape == y.shape else (y, _double(cb), _double(cr)), axis=2)


def _halve(plane: RGB) -> RGB:
    """Mean of each 2x2, halves rounded up."""
    wide = plane.astype(np.uint16)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)


def _double(plane: RGB) -> RGB:
    """Linear interpolation (3:1 both ways, edges repeated) of samples that sit in the middle of each 2x2."""
    wide = np.pad(plane.astype(np.uint16), 1, mode="edge")
    rows = np.stack((3 * wide[1:-1] + wide[:-2], 3 * wide[1:-1] + wide[2:]), axis=1).reshape(-1, wide.shape[1])
    both = np.stack((3 * rows[:, 1:-1] + rows[:, :-2], 3 * rows[:, 1:-1] + rows[:, 2:]), axis=2)
    return ((both.reshape(rows.shape[0], -1) + 8) >> 4).astype(np.uint8)
