"""SSIMULACRA2 in version 2.1: how much structure is off, how much ringing there is and how much detail is gone, at six
scales and in a space of colours as people see them, weighed by what they said of pictures.

Source: Sneyers, the reference implementation (github.com/cloudinary/ssimulacra2), from which the weights are; its
colours and its blur are those of libjxl.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .images import RGB

Planes: TypeAlias = NDArray[np.float32]
"""Three planes of a picture, (3, H, W)."""

MIN_PX = 8
"""Of the shorter side, for one more scale."""

_SCALES = 6
_FLOOR = 0.0009
"""Of variances, so that flat parts are alike."""

_TO_CONES = np.array(
    [
        [0.3, 1 - 0.078 - 0.3, 0.078],
        [0.23, 1 - 0.078 - 0.23, 0.078],
        [0.24342268924547819, 0.20476744424496821, 1 - 0.24342268924547819 - 0.20476744424496821],
    ],
    np.float32,
)
_BIAS = np.float32(0.0037930732552754493)

_LINEAR = np.where(
    np.arange(256) <= 0.04045 * 255, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
).astype(np.float32)
"""Light of each 8-bit value of sRGB, 0..1."""

_BLUR = (0.2646211054881984, 0.2129285920104221, 0.1093353727774602, 0.0360111146583643, 0.0094143678096536)
"""A Gaussian of sigma 1.5 as three cosines within five pixels (Charalampidis, IEEE TSP 2016): its middle and a side."""

# Three channels of up to six scales; of each map (structure, ringing, detail) the mean, then of each the 4-norm.
# fmt: off
_WEIGHTS = np.array([
    0, 0.0007376606707406586, 0, 0, 0.0007793481682867309, 0,
    0, 0.0004371155730107379, 0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752,
    0, 0.0016406437456599754, 0, 1.8422455520539298, 11.441172603757666, 0,
    0.0007989109436015163, 0.000176816438078653, 0, 1.8787594979546387, 10.94906990605142, 0,
    0.0007289346991508072, 0.9677937080626833, 0, 0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053,
    0.0004550992113792063, 0, 0, 0.0013648766163243398, 0, 0,
    0, 0, 0, 7.466890328078848, 0, 17.445833984131262,
    0.0006235601634041466, 0, 0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264,
    225.20515300849274, 0, 0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985,
    176.39317598450694, 0, 0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408,
    0, 0, 0, 34.77906344483772, 44.835625328877896, 0,
    0, 0, 0, 0, 0, 0,
    0, 0.0008680556573291698, 0, 0, 0, 0,
    0, 0.0005313191874358747, 0, 0.00016533814161379112, 0, 0,
    0, 0, 0, 0.0004179171803251336, 0.0017290828234722833, 0,
    0.0020827005846636437, 0, 0, 8.826982764996862, 23.19243343998926, 0,
    95.1080498811086, 0.9863978034400682, 0.9834382792465353, 0.0012286405048278493, 171.2667255897307,
    0.9807858872435379,
    0, 0, 0, 0.0005130064588990679, 0, 0.00010854057858411537,
])
# fmt: on


def score(out: RGB, gt: RGB) -> float:
    """The measure itself; arguments as of `metrics.ssimulacra2`, which checks them."""
    ours, theirs = (_LINEAR[np.moveaxis(image, 2, 0)] for image in (out, gt))
    errors = []
    for number in range(_SCALES):
        if min(ours.shape[1:]) < MIN_PX:
            break
        if number:
            ours, theirs = _halved(ours), _halved(theirs)
        errors.append(_errors(_xyb(ours), _xyb(theirs)))
    # By channels, then by scales; smaller pictures have fewer of these, and the weights of others.
    values = np.moveaxis(np.array(errors), 0, 1).ravel()
    total = 0.9562382616834844 * float(values @ _WEIGHTS[: len(values)])
    shaped = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
    return 100 - 10 * shaped**0.6276336467831387 if shaped > 0 else 100.0


def _errors(ours: Planes, theirs: Planes) -> NDArray[np.float64]:
    """Mean and 4-norm of three maps for each channel: (3, 2, 3)."""
    our_mean, their_mean = _blur(ours), _blur(theirs)
    covariance = _blur(ours * theirs) - our_mean * their_mean
    variances = (_blur(ours * ours) - our_mean * our_mean) + (_blur(theirs * theirs) - their_mean * their_mean)
    alike = (1 - (our_mean - their_mean) ** 2) * (2 * covariance + _FLOOR) / (variances + _FLOOR)
    edges = (1 + np.abs(ours - our_mean)) / (1 + np.abs(theirs - their_mean)) - 1
    maps = np.stack([np.maximum(part, 0) for part in (1 - alike, edges, -edges)], axis=1)
    means = maps.mean((2, 3), dtype=np.float64)
    norms = np.square(np.square(maps)).mean((2, 3), dtype=np.float64) ** 0.25
    return np.stack([means, norms], axis=1)


def _xyb(linear: Planes) -> Planes:
    """Colours by differences of what cones see: red or green, bright, and blue or yellow; each about 0..1."""
    cones = np.cbrt(np.maximum(np.tensordot(_TO_CONES, linear, 1) + _BIAS, 0)) - np.cbrt(_BIAS)
    first, second, third = cones
    bright = (first + second) / 2
    planes: Planes = np.stack([14 * (first - second) / 2 + 0.42, bright + 0.01, third - bright + 0.55])
    return planes


def _blur(planes: Planes) -> Planes:
    """As `_BLUR` says, with black around."""
    reach = len(_BLUR) - 1
    for axis in (1, 2):
        length = planes.shape[axis]
        along = np.moveaxis(np.pad(planes, [(reach, reach) if k == axis else (0, 0) for k in range(3)]), axis, 0)
        sides = (along[reach - k : reach - k + length] + along[reach + k : reach + k + length] for k in range(1, 5))
        blurred: Planes = _BLUR[0] * along[reach : reach + length]
        for weight, both in zip(_BLUR[1:], sides, strict=True):
            blurred += weight * both
        planes = np.moveaxis(blurred, 0, axis)
    return planes


def _halved(planes: Planes) -> Planes:
    """Means of 2x2 px; what lies beyond the edge is as the edge."""
    height, width = planes.shape[1:]
    even = np.pad(planes, [(0, 0), (0, height % 2), (0, width % 2)], "edge")
    halved: Planes = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    halved *= np.float32(0.25)
    return halved
