"""What `sqe enhance --faithful` moves, how much of a JPEG file its results agree with, and what that costs in LPIPS.

Each picture is saved as a JPEG (4:2:0), enhanced with and without the option, and coded again by another encoder with
the file's own tables, from the pixels (as a PNG has them) and from what a JPEG of quality 95 keeps of them.

python benchmarks/faithful.py PICTURES [--qf 10 --qf 20 ...] [--limit N]
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import jpeglib
import numpy as np
from PIL import Image

import machine
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.faithful import Faithfulness, LumaIntervals
from subjectiveqe.images import list_images, read_rgb
from subjectiveqe.metrics import lpips, psnr


def main() -> None:
    """Prints one row for each QF."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--qf", type=int, action="append")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    enhancer = Enhancer(runtime="onnxruntime")
    paths = list_images(options.pictures)[: options.limit]
    print(machine.describe())
    print(f"{options.pictures.name}, {len(paths)} pictures, bundled model, onnxruntime")
    shares = ["moved", "agree, PNG", "off by one at most", "agree, JPEG 95"]
    columns = ["QF", *shares, "LPIPS in", "out", "faithful", "PSNR in", "out", "faithful"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for qf in options.qf or [10, 20, 40, 75]:
        rows = np.array([measure(read_rgb(path), qf, enhancer) for path in paths])
        means, worst = rows.mean(0), rows[:, 2].max()
        shares = [f"{100 * means[0]:.2f} %", f"{100 * means[1]:.3f} %", "yes" if worst <= 1 else f"no, {worst:.0f}"]
        shares += [f"{100 * means[3]:.2f} %"]
        values = [f"{value:.4f}" for value in means[4:7]] + [f"{value:.2f}" for value in means[7:]]
        print("| " + " | ".join([str(qf), *shares, *values]) + " |", flush=True)


def measure(gt: np.ndarray, qf: int, enhancer: Enhancer) -> list[float]:
    """The columns of one picture."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.jpg"
        Image.fromarray(gt).save(source, quality=qf, subsampling=2)
        lq = read_rgb(source)
        out, report = enhancer(lq), Faithfulness()
        faithful = np.concatenate([*LumaIntervals(source, "png").keep([out], report)])
        with Image.open(source) as picture:
            tables = picture.quantization
        wanted = luma(source)
        off = [np.abs(luma(code(image, Path(folder), tables)) - wanted) for image in (faithful, saved(faithful))]
    judged = [judge(image, gt) for judge in (lpips, psnr) for image in (lq, out, faithful)]
    return [report.moved / report.coefficients, (off[0] == 0).mean(), off[0].max(), (off[1] == 0).mean(), *judged]


def saved(image: np.ndarray) -> np.ndarray:
    """What a JPEG of quality 95 keeps, as `sqe enhance` writes one."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(file))


def code(image: np.ndarray, folder: Path, tables: dict) -> Path:
    """A JPEG with given tables."""
    path = folder / "again.jpg"
    Image.fromarray(image).save(path, qtables=tables, subsampling=0)
    return path


def luma(path: Path) -> np.ndarray:
    """The quantised coefficients of a JPEG file's luma."""
    return jpeglib.read_dct(str(path)).Y.astype(int)


if __name__ == "__main__":
    main()
