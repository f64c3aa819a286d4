"""What pictures are taken for that were compressed once, or twice: how many for what they were at first.

Each picture is compressed by what a case says, one after the other, and looked at as `sqe enhance` looks at it without
its file. Chroma is halved but in HEVC and `avif-444`. A picture that is "cut" loses 3 rows and 5 columns in between.

python benchmarks/taken_for.py PICTURES [--every N] [--case "jpeg:30 cut, webp:80"]
"""

from __future__ import annotations

from collections import Counter
from statistics import mean

import numpy as np

import machine
from pictures import coded, parser_of, read_pictures
from subjectiveqe.codecs import crop_to_multiple
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.images import RGB

_FAMILIES = ("webp:20", "webp:50", "hevc:37", "hevc-420:32", "hevc-420:37", "avif:30", "avif-444:30")
_CUT = ("jpeg:15 cut", "jpeg:33 cut", "jpeg:60 cut", "jpeg:81 cut")
CASES = (
    *("as they are", "jpeg:10", "jpeg:20", "jpeg:40", "jpeg:70", "jpeg:85", "jpeg:90", "jpeg:95"),
    *("webp:20", "webp:50", "webp:80", "avif:30", "avif:50", "avif:70"),
    *("hevc:22", "hevc:32", "hevc:37", "hevc-420:32"),
    *(f"{first}, jpeg:{qf}" for first in _FAMILIES for qf in (95, 85)),
    *(f"{first}, {then}" for first in _CUT for then in ("jpeg:95", "jpeg:85", "jpeg:75", "webp:80", "avif:70")),
    *(f"jpeg:{qf}, {then}" for qf in (15, 33, 60) for then in ("webp:80", "avif:70")),
)


def main() -> None:
    """Prints a row for each case."""
    parser = parser_of(__doc__)
    parser.add_argument("--case", action="append", help=f"of {'; '.join(CASES)}; or likewise")
    options = parser.parse_args()
    originals = [crop_to_multiple(rgb, 8) for rgb in read_pictures(options.pictures, options.every)]
    enhancer = Enhancer("fast", "onnxruntime")
    print(machine.describe())
    print(f"{options.pictures.name}, {len(originals)} pictures, fast, onnxruntime")
    print("| case | an earlier JPEG | beneath the JPEG | coarseness | taken for |\n|---|---|---|---|---|")
    for case in options.case or CASES:
        looks = [enhancer.look(made(gt, case)) for gt in originals]
        families = Counter((enhancer.taken_for(look) or "nothing").partition(":")[0] for look in looks)
        earlier = Counter(f"QF {look.earlier.qf}" for look in looks if look.earlier is not None)
        beneath = [look.coarseness.sum() for look in looks if look.surface is not None and look.coarseness is not None]
        coarseness = mean(0.0 if look.coarseness is None else float(look.coarseness.sum()) for look in looks)
        cells = (case, counts(earlier), f"{len(beneath)}", f"{coarseness:.2f}", counts(families))
        print(f"| {' | '.join(cells)} |", flush=True)


def made(rgb: RGB, case: str) -> RGB:
    """What all steps of a case leave of a picture."""
    for step in case.split(", ") if case != "as they are" else ():
        how, *cut = step.split(" ")
        rgb = coded(crop_to_multiple(rgb, 8), how)
        if cut:
            rgb = np.ascontiguousarray(rgb[3:, 5:])
    return rgb


def counts(found: Counter[str]) -> str:
    """The most frequent first."""
    return ", ".join(f"{number} {what}" for what, number in found.most_common()) or "0"


if __name__ == "__main__":
    main()
