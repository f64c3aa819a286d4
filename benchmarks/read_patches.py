"""Samples per second on one core: crops from a store's memory map against other ways to feed a training.

All read the same 2-megapixel pairs from LMDB in one run, by turns, in one process, files in the page cache. One keeps
PNG files in LMDB, and for every crop decodes those of the compressed picture and its original. The others store the
originals alone, and code each crop anew, with a margin, since a codec looks beyond it.

    python benchmarks/read_patches.py [--patch-px 128] [--seconds 10]
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from machine import describe
from subjectiveqe.codecs import get_codec
from subjectiveqe.data.pairs import PairSet
from subjectiveqe.data.patches import Patches
from subjectiveqe.data.prepare import prepare
from subjectiveqe.data.store import open_pairs
from subjectiveqe.images import RGB, read_rgb, write_png
from subjectiveqe.samples import samples

HEIGHT, WIDTH, PICTURES = 1152, 1792, 6  # 2.06 megapixels
MARGIN_PX = 16


def main() -> None:
    """Prints the rates and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch-px", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10, help="for each of them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "clean")
        prepare(folder / "clean", folder / "pairs.lmdb", "jpeg", [50], jobs=1)
        pairs = open_pairs(folder / "pairs.lmdb")
        patches = Patches([pairs], arguments.patch_px, seed=0)
        whole = WholePngs(folder / "png.lmdb", pairs, arguments.patch_px)
        ways = {
            "view on the map": patches.__getitem__,
            "two whole PNGs": whole.read,
            **{f"coded anew, {name}": coded_anew(patches, pairs, name) for name in ("jpeg", "webp", "hevc", "avif")},
        }
        rates = dict.fromkeys(ways, 0.0)
        rounds = 5
        for _ in range(rounds):
            for way, read in ways.items():
                rates[way] += rate(read, arguments.seconds / rounds) / rounds
    for way, value in rates.items():
        print(
            f"{way:18s} {value:9.1f} samples/s per core, the first is {rates['view on the map'] / value:.1f} times it"
        )
    print(f"{PICTURES} pairs of {WIDTH}x{HEIGHT} px, {arguments.patch_px} px patches; {describe()}")


def make_pictures(folder: Path) -> None:
    """Pictures of 2 megapixels, tiled from the bundled ones with mirrored copies, a different part for each."""
    for number in range(PICTURES):
        picture = read_rgb(samples()[number % len(samples())])
        row = np.concatenate((picture, picture[:, ::-1]) * 4, axis=1)
        tiled = np.concatenate((row, row[::-1]) * 4)
        write_png(folder / f"{number}.png", tiled[number * 40 :][:HEIGHT, number * 40 :][:, :WIDTH])


class WholePngs:
    """PNG files in LMDB, of which a sample decodes two, cuts its patch and flips it."""

    def __init__(self, path: Path, pairs: PairSet, patch_px: int) -> None:
        self.patch_px, self.number = patch_px, len(pairs)
        with lmdb.open(str(path), map_size=1 << 32) as env, env.begin(write=True) as transaction:
            for index in range(len(pairs)):
                for key, picture in zip(("lq", "gt"), pairs.read(index), strict=True):
                    file = io.BytesIO()
                    Image.fromarray(picture).save(file, "PNG")
                    transaction.put(f"{key}/{index}".encode(), file.getvalue())
        self.transaction = lmdb.open(str(path), readonly=True, lock=False).begin(buffers=True)

    def read(self, k: int) -> list[RGB]:
        """Sample k."""
        rng = np.random.default_rng((0, k))
        index = rng.integers(self.number)
        pictures = [
            np.asarray(Image.open(io.BytesIO(self.transaction.get(f"{key}/{index}".encode())))) for key in ("lq", "gt")
        ]
        height, width, _ = pictures[0].shape
        top, left = rng.integers(height - self.patch_px + 1), rng.integers(width - self.patch_px + 1)
        patches = [picture[top : top + self.patch_px, left : left + self.patch_px] for picture in pictures]
        return [np.ascontiguousarray(patch[:: rng.choice([-1, 1])]) for patch in patches]


def coded_anew(patches: Patches, pairs: PairSet, codec_name: str) -> Callable[[int], list[RGB]]:
    """Sample k: a crop of an original with a margin, coded at a random level, and what is within the margin."""
    codec, side = get_codec(codec_name), patches.patch_px + 2 * MARGIN_PX
    levels = {"hevc": (20, 45)}.get(codec_name, (10, 90))

    def read(k: int) -> list[RGB]:
        rng = np.random.default_rng((0, k))
        info = pairs.infos[index := int(rng.integers(len(pairs)))]
        top, left = rng.integers(info.height - side + 1), rng.integers(info.width - side + 1)
        _, gt = pairs.crop(index, int(top), int(left), side, side)
        lq = codec.code(np.ascontiguousarray(gt), int(rng.integers(*levels))).rgb
        return [picture[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] for picture in (lq, gt)]

    return read


def rate(read: Callable[[int], object], seconds: float) -> float:
    """Samples per second of processor time, so that threads count in full and other programs little."""
    start, k = time.process_time(), 0
    while time.process_time() - start < seconds:
        read(k)
        k += 1
    return k / (time.process_time() - start)


if __name__ == "__main__":
    main()
