"""What pictures are measured by, in tables and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import metrics
from ..errors import ConfigError, unknown
from ..images import RGB
from ..metrics import Original
from ..weights import locate


@dataclass(frozen=True)
class Measure:
    """One column of the tables.

    Args:
        heading: as people read it, with the unit.
        form: how its numbers are printed.
        higher_is_better: what counts as an improvement; towards 1 for None.
        of: takes `out` and `gt`, gives the value.
        weights: what `sqe weights` has to have for it.
    """

    heading: str
    form: str
    higher_is_better: bool | None
    of: Callable[[RGB, RGB | Original], float]
    weights: tuple[str, ...] = ()

    @property
    def way(self) -> str:
        """Which way is better, in words."""
        return {True: "higher is better", False: "lower is better", None: "nearer to 1 is better"}[
            self.higher_is_better
        ]


MEASURES = {
    "psnr_db": Measure("PSNR dB", ".2f", True, metrics.psnr),
    "psnr_y_db": Measure("PSNR-Y dB", ".2f", True, metrics.psnr_y),
    "ssim": Measure("SSIM", ".4f", True, metrics.ssim),
    "lpips": Measure("LPIPS", ".4f", False, metrics.lpips),
    "lpips_legacy": Measure("LPIPS legacy", ".4f", False, lambda out, gt: metrics.lpips(out, gt, legacy=True)),
    "blockiness": Measure("blockiness", ".3f", None, lambda out, _: metrics.blockiness(out)),
    "dists": Measure("DISTS", ".4f", False, metrics.dists, ("vgg16", "dists")),
    "ssimulacra2": Measure("SSIMULACRA2", ".2f", True, metrics.ssimulacra2),
    "ms_ssim": Measure("MS-SSIM", ".4f", True, metrics.ms_ssim),
    "psnr_b_db": Measure("PSNR-B dB", ".2f", True, metrics.psnr_b),
    "lpips_vgg": Measure("LPIPS-VGG", ".4f", False, metrics.lpips_vgg, ("vgg16", "lpips-vgg")),
}
"""All measures by the name they have in CSV and JSON."""


def choose_measures(usual: Sequence[str], also: Sequence[str], without: Sequence[str]) -> list[str]:
    """The usual measures with some more or fewer; ConfigError for a name that is none of `MEASURES`."""
    _check_names((*also, *without))
    return [name for name in MEASURES if name in {*usual, *also} - {*without}]


def check_measures(names: Sequence[str]) -> None:
    """Refuses measures that cannot be taken on this machine, now and not at the first picture.

    Raises:
        ConfigError: there is none, or a name is none of `MEASURES`.
        WeightsError: weights are missing.
    """
    if not names:
        raise ConfigError("no measure is left; leave fewer out")
    _check_names(names)
    for name in names:
        for weights in MEASURES[name].weights:
            locate(weights)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)


def is_better(name: str, before: float, after: float) -> bool:
    """Whether a measure improved: upwards, downwards, or, for blockiness, towards 1."""
    higher_is_better = MEASURES[name].higher_is_better
    if higher_is_better is None:
        return abs(after - 1) < abs(before - 1)
    return after > before if higher_is_better else after < before
