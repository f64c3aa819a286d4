"""The one call that makes a compressed picture look like the original again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ModelError, ShapeError
from ..images import RGB, first_line
from .runtime import open_network
from .tiling import plan_tiles

_TILE_BYTES = 512 * 2**20
"""Working memory of one tile by `bytes_px`; ONNX Runtime takes up to twice that, and a 48-megapixel picture 0.3 GB."""

_OWN_BYTES_PX = 36
"""What a tile's pixel takes outside the network: float32 RGB going in, coming out, and as levels."""


_LOOK_PX, _LOOKS = 192, 5
"""The coarseness of a picture is estimated on patches of this side, as in training, of which there are this many a row
and a column at most."""


class Enhancer:
    """Enhances pictures by one network, tile by tile, so that memory does not grow with the picture; thread-safe.

    Tiles overlap by as much as the network sees, so a tiled and a whole picture differ by rounding only. Where a
    network sees too far for that to fit into memory, neighbouring tiles fade into each other instead.

    Args:
        model: .onnx, .safetensors or .pt file; None for the bundled model.
        runtime: "onnxruntime", "openvino", "torch" or "auto".
        strength: 0..1, from the most faithful to the most pleasing; networks without the dial ignore it.
        tile_px: side of what is kept of a tile; 0 for whole pictures at once; None for what keeps memory low.
    Raises:
        ConfigError: an argument out of range, or a runtime that is not installed.
        ModelError: a file that is missing, damaged or no network of this package.
    Example:
        >>> from subjectiveqe.images import read_rgb, write_png
        >>> enhancer = Enhancer(strength=0.5)  # doctest: +SKIP
        >>> write_png(Path("better.png"), enhancer(read_rgb(Path("bad.jpg"))))  # doctest: +SKIP
    """

    def __init__(
        self, model: Path | str | None = None, runtime: str = "auto", strength: float = 1.0, tile_px: int | None = None
    ) -> None:
        if not 0 <= strength <= 1:  # NaN is refused too
            raise ConfigError(f"strength {strength} is out of range, expected 0 (faithful) to 1 (pleasing)")
        if tile_px is not None and tile_px < 0:
            raise ConfigError(f"tile_px {tile_px} is out of range, expected 0 (whole picture) or more")
        self.strength = float(strength)
        self._tile_px = tile_px
        self._name = str(model or "bundled model")
        self._network = open_network(None if model is None else Path(model), runtime)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the model file says of itself: network, training data, licence, ..."""
        return self._network.metadata

    def estimate(self, image: RGB) -> NDArray[np.float32] | None:
        """How coarsely the picture as a whole was compressed, by patches all over it; tiles then agree about it.

        Args:
            image: as of `__call__`.
        Returns:
            (K,), see `codecs.coarseness`; None where the network does not ask.
        """
        if self._network.estimate is None:
            return None
        rows, cols = (_looks(side) for side in image.shape[:2])
        patches = [image[row : row + _LOOK_PX, col : col + _LOOK_PX] for row in rows for col in cols]
        lq = np.stack(patches).transpose(0, 3, 1, 2).astype(np.float32) / 255
        value, log_scale = self._network.estimate(np.ascontiguousarray(lq)).transpose(1, 0, 2)
        certainty = np.exp(-log_scale)
        mean: NDArray[np.float32] = (value * certainty).sum(0) / certainty.sum(0)
        return mean

    def __call__(self, image: RGB) -> RGB:
        """Gives the enhanced picture.

        Args:
            image: uint8, (H, W, 3), any size from 1x1 on.
        Returns:
            uint8, the same shape, a new array.
        Raises:
            ShapeError: an array that is no such picture.
            ModelError: the network failed, or gave values that are not numbers.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ShapeError(f"expected a picture of uint8 (H, W, 3), got {image.dtype} {image.shape}")
        network = self._network
        coarseness = self.estimate(image)
        out = np.empty_like(image, order="C")
        for tile in plan_tiles(
            *image.shape[:2],
            overlap_px=network.receptive_px,
            stride_px=network.stride_px,
            tile_px=self._tile_px,
            max_area=_TILE_BYTES // (network.bytes_px + _OWN_BYTES_PX),
        ):
            lq = tile.read(image)
            try:
                values = network.run(lq, self.strength, coarseness)
            except Exception as error:  # each runtime has its own classes; out of memory is the usual cause
                size = f"{lq.shape[3]}x{lq.shape[2]}"
                raise ModelError(f"{self._name}: failed on a tile of {size} px ({first_line(error)})") from error
            if not np.isfinite(values.sum(dtype=np.float64)):
                raise ModelError(f"{self._name}: the network gave values that are not numbers; is the file damaged?")
            tile.write(values, out)
        return out


def _looks(side: int) -> list[int]:
    """Where patches begin along a side: evenly spread on the codec's 16-px grid, apart where there is room."""
    count = min(max(side // _LOOK_PX, 1), _LOOKS)
    return [int(place) // 16 * 16 for place in np.linspace(0, max(side - _LOOK_PX, 0), count)]
