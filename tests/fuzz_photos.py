"""Mutates picture files and enhances what comes of it; run by test_fuzz.py in a process of its own.

python tests/fuzz_photos.py MODEL FOLDER FORMAT FORMAT_OUT FAITHFUL MUTANTS SEED
"""

from __future__ import annotations

import faulthandler
import io
import json
import resource
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.formats.saving import Saving
from subjectiveqe.images import vips_profile
from subjectiveqe.samples import samples

HANGS_S = 60
"""How long one mutant may take; a hundredth of a second is usual."""

PNG = b"\x89PNG\r\n\x1a\n"

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/></x:xmpmeta>"


def draw(kind: str) -> list[bytes]:
    """Files of crops of the bundled photos, 64x48; together they have most of what their format can."""
    pictures = [Image.open(path).convert("RGB").crop((170, 120, 234, 168)) for path in samples()]
    clear = pictures[0].copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif.get_ifd(0x8769)[0x9003] = "Maker", 6, "2024:05:06 07:08:09"
    told = {"exif": exif, "icc_profile": vips_profile("p3"), "xmp": XMP}
    match kind:
        case "jpeg":
            return [save(pictures[0], kind, comment="words", **told), save(pictures[1], kind, progressive=True, **told)]
        case "png":
            texts = PngInfo()
            texts.add_text("Title", "words")
            texts.add_text("Comment", "many words " * 9, zip=True)
            texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
            return [save(clear, kind, pnginfo=texts, **told), deep(pictures).crop(0, 0, 64, 48).write_to_buffer(".png")]
        case "webp":
            return [save(clear, kind, **told), save(clear, kind, lossless=True, **told)]
        case "heic":
            import pillow_heif

            pillow_heif.register_heif_opener()
            return [save(pictures[0], "heif", **told), save(clear, "heif", **told)]
        case "tiff":
            more = {"save_all": True, "append_images": pictures[1:], "compression": "tiff_lzw"}
            pages = deep(pictures)
            return [
                pages.write_to_buffer(".tif"),
                pages.write_to_buffer(".tif", compression="deflate", predictor="horizontal", tile=True),
                save(pictures[0], kind, exif=exif, icc_profile=told["icc_profile"], dpi=(300, 300), **more),
            ]
        case "gif":
            few = [picture.quantize(64) for picture in pictures]
            return [save(few[0], kind, save_all=True, append_images=few[1:], duration=[40, 80, 120], loop=2)]
        case _:
            return [save(pictures[0], kind, **told), save(clear, kind, **told)]


def save(picture: Image.Image, kind: str, **options: object) -> bytes:
    """A file as Pillow writes it."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def deep(pictures: list[Image.Image]) -> pyvips.Image:
    """Pages one below the other, of 16 bits, with profile and XMP."""
    high = np.concatenate([np.asarray(picture) for picture in pictures]).astype(np.uint16)
    image = pyvips.Image.new_from_array(high * 256 + high[::-1]).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.gint_type, "page-height", pictures[0].height)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", vips_profile("p3"))
    image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    return image


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bits flipped, bytes set to extremes or anew; in every other, pieces cut out or doubled, or the end cut off.

    What only changes bytes where they lie gets past those who look at lengths alone, to the decoders behind them.
    """
    mutant = bytearray(data)
    kinds = 3 if rng.integers(2) else 6
    for _ in range(int(rng.integers(1, 5))):
        place, length = int(rng.integers(len(mutant) or 1)), int(rng.integers(1, 40))
        match int(rng.integers(kinds)):
            case 0:
                mutant[place : place + 1] = bytes(
                    byte ^ (1 << int(rng.integers(8))) for byte in mutant[place : place + 1]
                )
            case 1:
                mutant[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
            case 2:
                mutant[place : place + length] = rng.bytes(length)
            case 3:
                del mutant[place : place + length]
            case 4:
                mutant[place:place] = mutant[place : place + length]
            case _:
                del mutant[place:]
    return with_sums(bytes(mutant)) if data.startswith(PNG) and rng.integers(4) else bytes(mutant)


def with_sums(data: bytes) -> bytes:
    """A PNG of which each chunk has the sum that its bytes ask for: else nothing is looked at but that it is wrong."""
    parts, place = [data[:8]], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4].ljust(4, b"\0"))
        body = data[place + 4 : place + 8 + length]
        parts.append(data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts)


def peak_bytes() -> int:
    """The most memory that was ever resident."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS; on Linux it has the parent's too
    (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(peak.split()[1])


def main() -> None:
    """Prints what became of the mutants as JSON, each reason with the number of the first mutant that had it."""
    model, folder, kind, format_out, faithful, mutants, seed = sys.argv[1:]
    rng = np.random.default_rng(int(seed))
    enhancer = Enhancer(model, "onnxruntime")
    source, out = Path(folder) / f"fuzz.{kind}", Path(folder) / "out"
    options = {"saving": Saving(format_out), "faithful": faithful == "True", "existing": "overwrite"}
    statuses, reasons = [], {}
    originals = draw(kind)
    for original in originals:
        source.write_bytes(original)
        (outcome,) = enhance_files([source], out, enhancer, **options).outcomes
        if outcome.status != "done":
            sys.exit(f"the original cannot be enhanced: {outcome.reason}")
    for number in range(int(mutants)):
        source.write_bytes(mutate(originals[number % len(originals)], rng))
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        (outcome,) = enhance_files([source], out, enhancer, **options).outcomes
        statuses.append(outcome.status)
        reasons.setdefault(outcome.reason, number)
    faulthandler.cancel_dump_traceback_later()
    left = sorted(path.name for path in out.iterdir())
    print(json.dumps({"statuses": statuses, "reasons": reasons, "left": left, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
