"""The three pristine pictures that ship with the package, for the demo and the tests."""

from __future__ import annotations

from pathlib import Path

SAMPLES_FOLDER = Path(__file__).parent / "assets" / "samples"


def samples() -> list[Path]:
    """Paths of the bundled pristine pictures, sorted by name; lossless WebP, 8-bit sRGB.

    Their origins and licences are in THIRD_PARTY.md.

    Example:
        >>> [path.stem for path in samples()]
        ['astronaut', 'chelsea', 'coffee']
    """
    return sorted(SAMPLES_FOLDER.glob("*.webp"))
