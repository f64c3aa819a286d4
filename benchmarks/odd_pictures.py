"""Pictures that the models were not made for: what the default makes of them, and what saying more of some does.

Each picture is made odd, compressed, and enhanced; judged is against what it was before it was compressed.

python benchmarks/odd_pictures.py PICTURES [--every N]
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

import machine
from pictures import coded, parser_of, read_pictures
from subjectiveqe.codecs import crop_to_multiple
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.images import RGB
from subjectiveqe.metrics import lpips, psnr, ssimulacra2
from videos import decode, encode, panned


def main() -> None:
    """Prints a row for each case, and one more for each that can be told what it is."""
    options = parser_of(__doc__).parse_args()
    originals = [crop_to_multiple(rgb, 16) for rgb in read_pictures(options.pictures, options.every)]
    print(machine.describe())
    print(f"{options.pictures.name}, {len(originals)} pictures, the default, onnxruntime")
    print("| pictures | enhanced | PSNR dB | LPIPS | SSIMULACRA2 |\n|---|---|---|---|---|")
    for what, make, told in CASES:
        lqs, gts = zip(*map(make, originals), strict=True)
        ways = {"as they look": Enhancer(runtime="onnxruntime")}
        if told:
            ways[f"`--assume {told}`"] = Enhancer(runtime="onnxruntime", assume=told)
        for way, enhancer in ways.items():
            outs = [enhancer(lq) for lq in lqs]
            cells = [
                f"{mean(map(judge, lqs, gts)):.{digits}f} → {mean(map(judge, outs, gts)):.{digits}f}"
                for judge, digits in ((psnr, 2), (lpips, 4), (ssimulacra2, 2))
            ]
            print(f"| {what} | {way} | {' | '.join(cells)} |", flush=True)


def pixel_art(rgb: RGB, step: str) -> tuple[RGB, RGB]:
    """32 colours, in squares of 8 px."""
    small = Image.fromarray(rgb).reduce(8).quantize(32).convert("RGB")
    art = np.asarray(small.resize((small.width * 8, small.height * 8), Image.Resampling.NEAREST))
    return coded(art, step), art


def halftone(rgb: RGB, step: str) -> tuple[RGB, RGB]:
    """Dots 6 px apart, of each colour at an angle of its own; as it is where no step is given."""
    rows, cols = np.mgrid[: rgb.shape[0], : rgb.shape[1]] * (2 * np.pi / 6)
    screens = [
        np.cos(rows * np.cos(angle) + cols * np.sin(angle)) * np.cos(cols * np.cos(angle) - rows * np.sin(angle))
        for angle in np.deg2rad((15, 45, 75))
    ]
    dots = np.where(rgb / 127.5 - 1 > np.stack(screens, axis=2), 255, 0).astype(np.uint8)
    return coded(dots, step) if step else dots, dots


def enlarged(rgb: RGB, step: str) -> tuple[RGB, RGB]:
    """Half as large when it was compressed, and doubled since."""
    small = Image.fromarray(rgb).reduce(2)
    double = partial(Image.Image.resize, size=(rgb.shape[1], rgb.shape[0]), resample=Image.Resampling.BICUBIC)
    lq = double(Image.fromarray(coded(np.asarray(small), step)))
    return np.asarray(lq), np.asarray(double(small))


def flat_tables(rgb: RGB, step: int) -> tuple[RGB, RGB]:
    """A JPEG whose quantisers are all alike."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", qtables=[[step] * 64] * 2, subsampling="4:2:0")
    return np.asarray(Image.open(file)), rgb


def noisy(rgb: RGB, step: str, levels: float, blur_px: float = 0.0) -> tuple[RGB, RGB]:
    """With noise, or grain of film where it is blurred, from before it was compressed."""
    noise = np.random.default_rng(0).normal(0, 1, rgb.shape[:2] if blur_px else rgb.shape)
    noise = gaussian_filter(noise, blur_px) if blur_px else noise
    grain = noise * (levels / noise.std())
    gt = np.clip(np.rint(rgb + (grain[..., None] if blur_px else grain)), 0, 255).astype(np.uint8)
    return coded(gt, step), gt


def engraved(rgb: RGB, step: str) -> tuple[RGB, RGB]:
    """In lines 7 px apart that are as wide as the picture is dark."""
    dark = 1 - gaussian_filter(rgb.mean(axis=2), 4) / 127.5
    waves = np.cos(2 * np.pi / 7 * (np.arange(len(rgb))[:, None] - 15 * dark))
    ink = gaussian_filter(np.where(1.1 * waves > dark, 235.0, 20.0), 0.6)
    gt = np.repeat(ink.astype(np.uint8)[..., None], 3, axis=2)
    return coded(gt, step), gt


def noisy_between(rgb: RGB, first: str, then: str) -> tuple[RGB, RGB]:
    """With noise of 3 levels, and cut, between two codecs."""
    noise = np.random.default_rng(0).normal(0, 3, rgb.shape)
    between = np.clip(np.rint(coded(rgb, first) + noise), 0, 255).astype(np.uint8)[3:, 5:]
    return coded(between, then), np.ascontiguousarray(rgb[3:, 5:])


def frame(rgb: RGB, encoder: str, crf: int) -> tuple[RGB, RGB]:
    """One of a clip, over which a camera moves."""
    clip = panned(rgb)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mkv"
        encode(path, clip, encoder, str(crf))
        return list(decode(path))[len(clip) // 2], clip[len(clip) // 2]


CASES: tuple[tuple[str, Callable[[RGB], tuple[RGB, RGB]], str], ...] = (
    ("pixel art, JPEG QF 30", partial(pixel_art, step="jpeg:30"), ""),
    ("pixel art, JPEG QF 85", partial(pixel_art, step="jpeg:85"), ""),
    ("halftone, JPEG QF 60", partial(halftone, step="jpeg:60"), ""),
    ("halftone, not compressed", partial(halftone, step=""), ""),
    ("an engraving, JPEG QF 90", partial(engraved, step="jpeg:90"), "jpeg:90"),
    ("JPEG QF 85, doubled", partial(enlarged, step="jpeg:85"), ""),
    ("JPEG with flat tables", partial(flat_tables, step=24), "jpeg:78"),
    ("noise of 8 levels, JPEG QF 60", partial(noisy, step="jpeg:60", levels=8), "jpeg:83"),
    ("film grain, JPEG QF 60", partial(noisy, step="jpeg:60", levels=8, blur_px=0.8), "jpeg:83"),
    ("JPEG QF 30, noise, cut, JPEG QF 92", partial(noisy_between, first="jpeg:30", then="jpeg:92"), "jpeg:30"),
    ("a frame of H.264, CRF 24", partial(frame, encoder="x264", crf=24), "hevc-420:28"),
)


if __name__ == "__main__":
    main()
