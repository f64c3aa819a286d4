"""What the enhancer leaves alone: clean originals, and the colours of compressed pictures seen from afar.

Clean originals have to come out nearly as they went in, at 42 dB and more on the mean; keeping the colours within a
quarter of a level, behind a Gaussian of sigma 32 px, may cost 0.02 dB of PSNR at JPEG QF 10.

python benchmarks/untouched.py --originals KODAK --live1 LIVE1 [--model FILE] [--runtime NAME]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

import machine
from pictures import read_pictures
from subjectiveqe.codecs import get_codec
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.images import list_images, read_rgb
from subjectiveqe.metrics import psnr

LEAST_DB, MOST_COST_DB, MOST_OFF = 42, 0.02, 0.25
QF = 10


def main() -> None:
    """Measures both and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--originals", type=Path, required=True)
    parser.add_argument("--live1", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", default="auto")
    options = parser.parse_args()
    locked, bare = (Enhancer(options.model, options.runtime, lock_colors=lock) for lock in (True, False))
    print(machine.describe())
    clean = read_pictures(options.originals)
    kept = [psnr(locked(picture), picture) for picture in clean]
    print(f"{len(clean)} originals to themselves: {np.mean(kept):.1f} dB, least {min(kept):.1f} (target {LEAST_DB})")
    jpeg = get_codec("jpeg")
    costs, off = [], []
    for path in list_images(options.live1):
        gt = read_rgb(path)
        lq = jpeg.code(gt, QF).rgb
        out = locked(lq)
        costs.append(psnr(bare(lq), gt) - psnr(out, gt))
        off.append(np.abs(gaussian_filter(out - lq.astype(float), (32, 32, 0))).max())
    cost = f"costs {np.mean(costs):.4f} dB, at most {max(costs):.3f} (target {MOST_COST_DB})"
    print(
        f"colours kept on {len(costs)} pictures at QF {QF}: {cost}, off by at most {max(off):.3f} (target {MOST_OFF})"
    )


if __name__ == "__main__":
    main()
