"""Mutates picture files and enhances what comes of it; run by test_fuzz.py in a process of its own.

python tests/fuzz_photos.py MODEL FOLDER FORMAT FORMAT_OUT FAITHFUL MUTANTS SEED
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.formats.saving import Saving


def draw(path: Path, kind: str, rng: np.random.Generator) -> bytes:
    """A small picture file with alpha, EXIF or 16 bits, as its format allows."""
    pixels = rng.integers(0, 256, (24, 40, 4 if kind in ("png", "webp") else 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    if kind == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(path, {"heic": "HEIF"}.get(kind, kind.upper()), exif=exif)
    return path.read_bytes()


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits flipped, bytes set to extremes, pieces cut out, doubled or moved, or the end cut off."""
    mutant = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        place, length = int(rng.integers(len(mutant) or 1)), int(rng.integers(1, 40))
        match int(rng.integers(6)):
            case 0:
                mutant[place : place + 1] = bytes(
                    byte ^ (1 << int(rng.integers(8))) for byte in mutant[place : place + 1]
                )
            case 1:
                mutant[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
            case 2:
                del mutant[place : place + length]
            case 3:
                mutant[place:place] = mutant[place : place + length]
            case 4:
                mutant[place : place + length] = rng.bytes(length)
            case _:
                del mutant[place:]
    return bytes(mutant)


def main() -> None:
    """Prints what became of the mutants as JSON."""
    model, folder, kind, format_out, faithful, mutants, seed = sys.argv[1:]
    rng = np.random.default_rng(int(seed))
    enhancer = Enhancer(model, "onnxruntime")
    source, out = Path(folder) / f"fuzz.{kind}", Path(folder) / "out"
    options = {"saving": Saving(format_out), "faithful": faithful == "True", "existing": "overwrite"}
    statuses, reasons = [], set()
    original = draw(source, kind, rng)
    for _ in range(int(mutants)):
        source.write_bytes(mutate(original, rng))
        (outcome,) = enhance_files([source], out, enhancer, **options).outcomes
        statuses.append(outcome.status)
        reasons.add(outcome.reason)
    left = sorted(path.name for path in out.iterdir()) if out.exists() else []
    print(json.dumps({"statuses": statuses, "reasons": sorted(reasons), "left": left}))


if __name__ == "__main__":
    main()
