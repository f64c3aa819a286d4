"""Draws the curve of docs/reproduction.md from its table: PSNR and LPIPS of the seed's recipe on validation pictures.

    python docs/seed_curve.py

Writes docs/seed_curve.svg.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
ROW = re.compile(r"^\| (psnr|gan, from step [\d,]+)? ?\| ([\d,]+) \| (\d+\.\d+) \| (\d\.\d+) \|$", re.M)
"""Stage where it begins, step, PSNR, LPIPS."""


def main() -> None:
    """Reads the table and draws."""
    steps, psnrs_db, lpipss = [], [], []
    before = begun = 0
    for stage, step, psnr_db, lpips in ROW.findall((DOCS / "reproduction.md").read_text(encoding="utf-8")):
        if stage.startswith("gan"):
            before = begun = steps[-1]
        steps.append(before + int(step.replace(",", "")))
        psnrs_db.append(float(psnr_db))
        lpipss.append(float(lpips))
    plt.rcParams.update({"svg.hashsalt": "seed", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, values, name in zip(axes, (psnrs_db, lpipss), ("PSNR dB", "LPIPS"), strict=True):
        axis.plot(steps, values, marker="o", markersize=3)
        axis.axvline(begun, color="gray", linestyle=":")
        axis.text(begun, axis.get_ylim()[1], " GAN", va="top", color="gray")
        axis.set_xlabel("steps")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    figure.savefig(DOCS / "seed_curve.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
