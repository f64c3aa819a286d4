"""What AVIF and HEIC files say of how coarsely they were quantised."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np

from .coarseness import FAMILIES, avif_step, coarseness, on_scale

_TUNED = (0, 16, 32, 48, 60, 76, 92, 108, 136, 148, 196, 216, 236, 249, 255)
_NOMINAL = (0, 12, 24, 36, 52, 64, 76, 88, 112, 128, 176, 200, 228, 240, 255)
"""Where libaom is tuned for pictures ("iq", which libavif asks for) it writes a higher index than a quality stands for,
and a matrix that is finer than flat for what is seen most. Read off files of libavif 1.4.2 at qualities 5 to 95."""

_FIELD = re.compile(r"\d+ +(\w+) +[01]+ = (-?\d+)")
"""Place in bits, name, bits and value, as `trace_headers` logs them."""

_FFMPEG_LOG = threading.Lock()
"""Its verbosity is one for all threads."""

_CHROMA = {1: "420", 2: "422", 3: "444"}
"""What `chroma_format_idc` stands for."""


def file_coarseness(path: Path, num: int = len(FAMILIES)) -> tuple[float, ...] | None:
    """Reads the quantiser out of the first frame's header, by FFmpeg's `trace_headers`.

    In AVIF that is base_q_idx, in HEIC the QP of the first slice: of the first tile, where a picture consists of tiles.

    Args:
        path: an AVIF or HEIC file.
        num: how many of `coarseness.FAMILIES` the network is told.
    Returns:
        `num` numbers, as `coarseness.coarseness` gives them; None where the file cannot be read so.
    """
    fields = _first_frame_header(path)
    if "base_q_idx" in fields:
        index = float(fields["base_q_idx"])
        if fields.get("using_qmatrix"):
            index = float(np.interp(index, _TUNED, _NOMINAL))
        return tuple(on_scale(avif_step(index)) if name == "avif" else 0.0 for name in FAMILIES[:num])
    if "slice_qp_delta" in fields and "init_qp_minus26" in fields:
        qp = 26 + fields["init_qp_minus26"] + fields["slice_qp_delta"]
        return coarseness("hevc", qp, num, _CHROMA.get(fields.get("chroma_format_idc", 0), ""))
    return None


def _first_frame_header(path: Path) -> dict[str, int]:
    """Names and values of its fields; empty for what FFmpeg cannot read."""
    import av
    import av.logging
    from av.bitstream import BitStreamFilterContext

    with _FFMPEG_LOG:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            with path.open("rb") as data, av.logging.Capture() as lines, av.open(data, "r") as file:
                picture = max(file.streams.video, key=lambda stream: stream.width * stream.height)  # no thumbnail
                trace = BitStreamFilterContext("trace_headers", picture)
                trace.filter(next(file.demux(picture)))
        except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration):
            return {}
        finally:
            av.logging.set_level(level)
    found = (_FIELD.fullmatch(text.strip()) for _, _, text in lines)
    return {field[1]: int(field[2]) for field in reversed([field for field in found if field])}
