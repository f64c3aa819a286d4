"""Compares codec `hevc` (libx265) with recorded figures of HM-16.5 on the Kodak pictures, and prints a Markdown table.

    python benchmarks/hevc_vs_hm.py KODAK_FOLDER HM_CSV

The CSV has one row per picture and QP: image, qp, bytes, psnr_y_db, psnr_cb_db, psnr_cr_db, lpips, encode_s. PSNR is on
the 8-bit YCbCr 4:4:4 planes that the encoder gets and gives, LPIPS (AlexNet, standard) on 8-bit RGB.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import av
import numpy as np

from machine import describe
from subjectiveqe.codecs import crop_to_multiple
from subjectiveqe.codecs.hevc import Hevc, decode_planes
from subjectiveqe.color import rgb_to_ycbcr
from subjectiveqe.images import list_images, read_rgb
from subjectiveqe.metrics import lpips

LIMITS = {"bytes": 0.05, "psnr_y_db": 0.15, "lpips": 0.05}
"""How far the means may be from HM's: two ratios and a difference in dB."""


@dataclass(frozen=True)
class Figures:
    """Figures of one picture at one QP, or their means."""

    num_bytes: float
    psnr_db: tuple[float, float, float]  # Y, Cb, Cr
    lpips: float
    seconds: float


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the 24 Kodak pictures, named as in the CSV")
    parser.add_argument("csv", type=Path, help="HM's figures")
    parser.add_argument("--qp", type=int, nargs="+", default=[27, 32, 37, 42])
    arguments = parser.parse_args()

    paths = {path.stem: path for path in list_images(arguments.folder)}
    with arguments.csv.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["qp"]) in arguments.qp]
    missing = sorted({row["image"] for row in rows} - paths.keys())
    if missing:
        parser.error(f"{arguments.folder}: {len(missing)} pictures of the CSV are not there, the first {missing[0]}")

    print(f"{describe()}, PyAV {av.__version__}; {len({row['image'] for row in rows})} pictures\n")
    print("| QP | bytes | HM | ratio | PSNR Y | HM | diff. | diff. Cb, Cr | LPIPS | HM | ratio | seconds | HM | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for qp in arguments.qp:
        at_qp = [row for row in rows if int(row["qp"]) == qp]
        ours = average([measure(paths[row["image"]], qp) for row in at_qp])
        print(table_row(qp, ours, average([recorded(row) for row in at_qp])), flush=True)


def measure(path: Path, qp: int) -> Figures:
    """Codes one picture; seconds are of encoding alone, on one core."""
    rgb = crop_to_multiple(read_rgb(path))
    codec = Hevc()
    start = time.process_time()
    data = codec.encode(rgb, qp)
    seconds = time.process_time() - start
    error = np.stack(decode_planes(data), axis=2).astype(np.float64) - rgb_to_ycbcr(rgb)
    y, cb, cr = 10 * np.log10(255**2 / np.square(error).mean(axis=(0, 1)))
    return Figures(len(data), (y, cb, cr), lpips(codec.decode(data), rgb), seconds)


def recorded(row: dict[str, str]) -> Figures:
    """HM's figures of one row of the CSV."""
    psnr_db = (float(row["psnr_y_db"]), float(row["psnr_cb_db"]), float(row["psnr_cr_db"]))
    return Figures(int(row["bytes"]), psnr_db, float(row["lpips"]), float(row["encode_s"]))


def average(figures: list[Figures]) -> Figures:
    """Means over pictures, those of PSNR over decibels."""
    y, cb, cr = (mean(planes) for planes in zip(*(f.psnr_db for f in figures), strict=True))
    return Figures(
        mean(f.num_bytes for f in figures),
        (y, cb, cr),
        mean(f.lpips for f in figures),
        mean(f.seconds for f in figures),
    )


def table_row(qp: int, ours: Figures, hm: Figures) -> str:
    """One line of the table; the last cell says which limits hold."""
    bytes_ratio, lpips_ratio = ours.num_bytes / hm.num_bytes, ours.lpips / hm.lpips
    d_y, d_cb, d_cr = (a - b for a, b in zip(ours.psnr_db, hm.psnr_db, strict=True))
    off = {"bytes": abs(bytes_ratio - 1), "psnr_y_db": abs(d_y), "lpips": abs(lpips_ratio - 1)}
    beyond = [name for name, limit in LIMITS.items() if off[name] > limit]
    cells = [
        f"{qp}",
        f"{ours.num_bytes:.0f} | {hm.num_bytes:.0f} | {bytes_ratio:.3f}",
        f"{ours.psnr_db[0]:.2f} | {hm.psnr_db[0]:.2f} | {d_y:+.2f} | {d_cb:+.2f}, {d_cr:+.2f}",
        f"{ours.lpips:.4f} | {hm.lpips:.4f} | {lpips_ratio:.3f}",
        f"{ours.seconds:.2f} | {hm.seconds:.2f}",
        f"beyond: {', '.join(beyond)}" if beyond else "within",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
