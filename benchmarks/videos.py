"""What `sqe enhance` makes of videos as people have them, and what it gains by what their files say.

A clip is a picture that is panned and zoomed over, or a video of your own, halved, so that little of its own coding is
left. It is coded, enhanced without loss and compared with what it was, every twelfth frame by PSNR, LPIPS and
SSIMULACRA2, all by how far changes from frame to frame are from those of the original, in levels.

python benchmarks/videos.py [PICTURES] [--every N] [--clip VIDEO] [--case x264:28] [--untold | --assume hevc-420:30]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean

import av
import numpy as np
import pyvips

import machine
from subjectiveqe.enhancing import clip_look
from subjectiveqe.enhancing.clip import to_rgb
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.video import enhance_video
from subjectiveqe.enhancing.video_files import Coding
from subjectiveqe.images import RGB, list_images, read_rgb
from subjectiveqe.metrics import lpips, psnr, ssimulacra2

HEIGHT, WIDTH, FRAMES, JUDGED = 352, 512, 48, 12

_MARGIN = 72
"""By how much a picture has to be larger than a frame, for the camera not to leave it."""

ENCODERS = {
    "x264": ("libx264", {}),
    "x264-intra": ("libx264", {"g": "1"}),
    "x265": ("libx265", {"x265-params": "log-level=error"}),
    "vp9": ("libvpx-vp9", {"b": "0", "cpu-used": "4"}),
    "av1": ("libsvtav1", {}),
}
CASES = (
    *(f"x264:{crf}" for crf in (18, 23, 28, 33)),
    *("x264-intra:28", "x265:22", "x265:28", "x265:34", "vp9:24", "vp9:34", "vp9:46", "av1:25", "av1:35", "av1:48"),
    *("x264:28,x264:18", "x264:33,x264:18", "x265:34,x264:20"),
)
"""Encoder and CRF, one after the other where a clip is coded twice."""


def main() -> None:
    """Prints a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="?")
    parser.add_argument("--every", type=int, default=1, help="take each of so many pictures")
    parser.add_argument("--clip", type=Path, action="append", default=[], help="a video to take halved")
    parser.add_argument("--case", action="append", help=f"of {' '.join(CASES)}, or likewise")
    parser.add_argument("--assume", help="as of sqe enhance")
    parser.add_argument("--untold", action="store_true", help="as if files said nothing")
    options = parser.parse_args()
    os.environ.setdefault("SVT_LOG", "0")
    av.logging.set_level(av.logging.PANIC)
    if options.untold:
        clip_look.clip_coarseness = lambda *_: []
    enhancer = Enhancer(runtime="onnxruntime", assume=options.assume)
    pictures = list_images(options.pictures)[:: options.every] if options.pictures else []
    clips = [*map(panned, map(read_rgb, pictures)), *map(halved, options.clip)]
    print(machine.describe())
    told = "untold" if options.untold else f"assumed: {options.assume}" if options.assume else "told"
    print(f"{len(clips)} clips of {FRAMES} frames, {enhancer.name}, {told}")
    columns = ("coded as", "kbit/s", "PSNR dB", "LPIPS", "SSIMULACRA2", "changes off by")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for case in options.case or CASES:
        results = [measure(clip, case, enhancer) for clip in clips]
        rate, before, after = ([*zip(*values, strict=True)] for values in zip(*results, strict=True))
        texts = [
            f"{mean(source):.{places}f} → {mean(enhanced):.{places}f}"
            for source, enhanced, places in zip(before, after, (2, 4, 2, 3), strict=True)
        ]
        print(f"| {case} | {mean(*rate):.0f} | {' | '.join(texts)} |", flush=True)


def panned(picture: RGB) -> list[RGB]:
    """A camera that moves over a picture by 1.3 px a frame, not along its rows, and slowly nearer."""
    image, cubic = pyvips.Image.new_from_array(picture), pyvips.Interpolate.new("bicubic")
    if (least := max((WIDTH + _MARGIN) / image.width, (HEIGHT + _MARGIN) / image.height)) > 1:
        image = image.resize(least)
    left, top = (image.width - WIDTH) / 2, (image.height - HEIGHT) / 2
    frames = []
    for k in range(FRAMES):
        scale = 1 + 0.0015 * k
        x, y = left + 1.3 * (k - FRAMES / 2), top + 10 * np.sin(k / 9)
        moved = image.affine(
            [scale, 0, 0, scale], interpolate=cubic, odx=-x * scale, ody=-y * scale, oarea=[0, 0, WIDTH, HEIGHT]
        )
        frames.append(moved.numpy().astype(np.uint8))
    return frames


def halved(path: Path) -> list[RGB]:
    """The first frames of a video, at half its size."""
    with av.open(str(path)) as container:
        frames = islice(container.decode(video=0), FRAMES)
        return [
            frame.reformat(frame.width // 4 * 2, frame.height // 4 * 2, "rgb24", interpolation="AREA").to_ndarray()
            for frame in frames
        ]


def measure(clip: list[RGB], case: str, enhancer: Enhancer) -> tuple[list[float], list[float], list[float]]:
    """Kilobits a second, and the columns of the source and of the result."""
    with tempfile.TemporaryDirectory() as folder:
        frames = clip
        for step in case.split(","):
            source, target = Path(folder) / "clip.mkv", Path(folder) / "better.mkv"
            with ThreadPoolExecutor(1) as encoder:  # SVT-AV1 puts root's thread that calls it before all others
                encoder.submit(encode, source, frames, *step.split(":")).result()
            frames = [*decode(source)]
        rate = source.stat().st_size * 8 / 1000 * 25 / len(frames)
        enhance_video(source, target, enhancer, Coding("ffv1"))
        return [rate], judge(frames, clip), judge([*decode(target)], clip)


def encode(path: Path, frames: list[RGB], name: str, crf: str) -> None:
    """A clip of 25 frames a second, in 4:2:0."""
    encoder, options = ENCODERS[name]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = *frames[0].shape[:2], "yuv420p"
        context.options = {"crf": crf, **options}
        for k, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(path: Path) -> Iterator[RGB]:
    """All frames."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield to_rgb(frame)


def judge(frames: list[RGB], clip: list[RGB]) -> list[float]:
    """Means over the frames that are judged, and over all how far their changes are off."""
    judged = range(JUDGED // 2, len(clip), JUDGED)
    scores = [mean(metric(frames[k], clip[k]) for k in judged) for metric in (psnr, lpips, ssimulacra2)]
    errors = (frame.astype(np.int16) - original for frame, original in zip(frames, clip, strict=True))
    return [*scores, mean(float(np.abs(after - before).mean()) for before, after in pairwise(errors))]


if __name__ == "__main__":
    main()
