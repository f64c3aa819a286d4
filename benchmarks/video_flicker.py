"""How much resting parts of a video change from frame to frame, before and after `sqe enhance`.

The clip is a photo at rest with a patch of another one moving over its right half, with noise as of a camera, coded by
x264; judged is the left half, where every change is the codec's, the noise's or the network's.

python benchmarks/video_flicker.py [--frames 48] [--crf 32 --crf 38] [--noise 0 --noise 2] [--video-codec x264]
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

import machine
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.video import enhance_video
from subjectiveqe.enhancing.video_files import Coding
from subjectiveqe.images import read_rgb
from subjectiveqe.samples import samples

HEIGHT, WIDTH = 256, 384


def main() -> None:
    """Prints one row for each CRF and noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--photo", type=int, default=0, help="which bundled one is at rest; the next one moves")
    parser.add_argument("--crf", type=int, action="append")
    parser.add_argument("--noise", type=float, action="append", help="standard deviation in levels")
    parser.add_argument("--video-codec", default="ffv1", help="of the result; lossy ones jump at key frames")
    options = parser.parse_args()
    enhancer = Enhancer(runtime="onnxruntime")
    print(machine.describe())
    columns = ("CRF", "noise", "change of the input, levels", "of the result", "ratio", "largest of a frame")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for crf in options.crf or [28, 36]:
        for noise in options.noise or [0.0, 2.0]:
            with tempfile.TemporaryDirectory() as folder:
                source, target = Path(folder) / "clip.mkv", Path(folder) / "better.mkv"
                make_clip(source, crf, noise, options.frames, options.photo)
                enhance_video(source, target, enhancer, Coding(options.video_codec))
                before, after = changes(source), changes(target)
            means = before.mean(), after.mean()
            largest = f"{before.max():.2f}, {after.max():.2f}"
            print(
                f"| {crf} | {noise:g} | {means[0]:.3f} | {means[1]:.3f} | {means[1] / means[0]:.2f} | {largest} |",
                flush=True,
            )


def make_clip(path: Path, crf: int, noise: float, count: int, photo: int) -> None:
    """The clip."""
    rng = np.random.default_rng(0)
    back, front = (
        read_rgb(path)[20 : 20 + HEIGHT, 20 : 20 + WIDTH] for path in (*samples(), *samples())[photo : photo + 2]
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        context.options = {"crf": str(crf)}
        for k in range(count):
            picture = back.astype(float)
            place = WIDTH // 2 + 32 + 2 * k % 64
            picture[64:128, place : place + 64] = front[64:128, 64:128]
            picture = np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def changes(path: Path) -> NDArray[np.float64]:
    """Mean absolute difference of neighbouring frames at rest, (frames - 1,)."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24")[:, : WIDTH // 2].astype(int) for frame in container.decode(video=0)]
    return np.array([np.abs(a - b).mean() for a, b in pairwise(frames)])


if __name__ == "__main__":
    main()
