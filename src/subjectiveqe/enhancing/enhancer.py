"""The one call that makes a compressed picture look like the original again."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ..codecs.coarseness import as_assumed, read_assumed
from ..dial import DEFAULT_STRENGTH, check_strength
from ..errors import ConfigError, ModelError, ShapeError, first_line
from ..formats.rows import Pixels, seen_colours
from ..machine import memory_bytes, trim_memory
from ..processes import keep_after_fork, submit
from .blocks import BLOCK_PX
from .colorlock import ColorLock
from .earlier_jpeg import find_earlier_jpeg
from .look import Look, look_at
from .network import Floats, Network, place_of_dial
from .runtime import TORCH_SUFFIXES, checksum, choose_model, choose_runtime, open_network
from .strips import beginning_earlier, patches_of, read_on, reader
from .tells import find_grid, has_few_colours, is_mosaic
from .tiling import LEAST_OVERLAPS, Tile, plan_tiles

if TYPE_CHECKING:
    from PIL import Image

_TILE_BYTES = 512 * 2**20
"""Working memory of one tile by `bytes_px`; ONNX Runtime takes up to twice that, and a 48-megapixel picture 0.4 GB."""

_BAND_BYTES, _BAND_BYTES_PX = 192 * 2**20, 20
"""Memory for a row of tiles, which is as wide as the picture, and what a pixel of it takes: rows read, rows made."""

_BROADEST = 2
"""Times its height that a tile may be wide: where rows of tiles are low to save memory, tiles save too."""

_TILE_SHARE = 1 / 4
"""Of the memory at hand, where that is short."""

_LEAST_AREA = 256**2
"""Tiles are not made smaller than this where memory is short, or runs out; in px. Smaller ones are mostly overlap:
slower by times, and seen in the result."""

_OWN_BYTES_PX = 36
"""What a tile's pixel takes outside the network: float32 RGB going in, coming out, and as levels."""

_GIVEN_PX, _GIVEN_ROWS = 2 * 2**20, 256
"""How much is finished at a time, and how many rows at least: a whole row of tiles would be copied a few times on the
way, and for each piece `ColorLock` looks at the same 600 rows around it."""


class Enhancer:
    """Enhances pictures by one network, tile by tile, so that memory does not grow with the picture; thread-safe.

    Tiles overlap by as much as the network hears, so a tiled and a whole picture differ by rounding only. Where a
    network hears too far for that to fit into memory, neighbouring tiles fade into each other instead.

    Args:
        model: "fast", "fast-int8" or "best", which come with the package, or a .onnx, .safetensors or .pt file; None
            for the fastest one of the package (`runtime.choose_model`).
        runtime: "onnxruntime", "openvino", "torch" or "auto" (`runtime.choose_runtime`).
        strength: 0..1, from the most faithful to the most pleasing; networks without the dial ignore it.
        tile_px: side of what is kept of a tile; 0 for whole pictures at once; None for what keeps memory low.
        lock_colors: keep the input's colours as seen from afar (`ColorLock`); False for the network's bare output.
        assume: what the picture was compressed by, where that is known better than its looks and its file say:
            "jpeg:30", "webp:20", "avif:30", "hevc:37" or, for 4:2:0 such as HEIC's, "hevc-420:37", with the QF or QP.
    Raises:
        ConfigError: an argument out of range, or a runtime that is not installed.
        ModelError: a file that is missing, damaged or no network of this package.
    Example:
        >>> from PIL import Image
        >>> from subjectiveqe.samples import samples
        >>> enhancer = Enhancer(runtime="onnxruntime", strength=0.5)
        >>> with Image.open(samples()[0]) as photo:
        ...     small = photo.convert("RGB").resize((64, 48))
        >>> enhancer(small).size, enhancer(np.asarray(small)).shape
        ((64, 48), (48, 64, 3))
    """

    def __init__(
        self,
        model: Path | str | None = None,
        runtime: str = "auto",
        strength: float = DEFAULT_STRENGTH,
        tile_px: int | None = None,
        lock_colors: bool = True,
        assume: str | None = None,
    ) -> None:
        if model is not None and (not isinstance(model, str | Path) or model == ""):
            raise ConfigError(f"model {model!r} is no model, expected a name, a file or None for the default")
        if not isinstance(strength, float | int | np.floating | np.integer):
            raise ConfigError(f"strength {strength!r} is no number, expected 0 (faithful) to 1 (pleasing)")
        check_strength(strength)
        if tile_px is not None and not isinstance(tile_px, int | np.integer):
            raise ConfigError(f"tile_px {tile_px!r} is no whole number, expected 0 (whole picture) or more")
        if tile_px is not None and tile_px < 0:
            raise ConfigError(f"tile_px {tile_px} is out of range, expected 0 (whole picture) or more")
        if not isinstance(assume, str | None):
            raise ConfigError(f'assume {assume!r} is no text, expected as "jpeg:30" or None')
        self._arguments = (model, runtime, strength, tile_px, lock_colors, assume)  # of a copy
        self._runtime, self._asked_strength = runtime, strength
        self.assume = assume
        """As it was given."""
        self._tile_px, self._lock_colors = tile_px, lock_colors
        self.name = choose_model(runtime, strength) if model is None else str(model)
        self._networks: dict[int, Network] = {}
        self.strength = place_of_dial(Path(self.name), self._network.metadata, float(strength))
        """Where the dial is: where it was asked for, or where a network without one was trained."""
        self._assumed = None if assume is None else self._told_of(assume)

    def __reduce__(self) -> tuple[type[Enhancer], tuple[Any, ...]]:
        """A copy in another process loads the network anew."""
        return type(self), self._arguments

    @property
    def runtime(self) -> str:
        """The engine in this process."""
        of_torch = Path(self.name).suffix.lower() in TORCH_SUFFIXES
        return choose_runtime(of_torch, self._runtime)

    @property
    def _network(self) -> Network:
        """That of this process: a forked one lacks the threads that its parent's network runs in."""
        process = os.getpid()
        if process not in self._networks:
            network = open_network(Path(self.name), self.runtime, self._asked_strength)
            keep_after_fork(self._networks.setdefault(process, network))  # to end it is to wait for its threads
        return self._networks[process]

    def _told_of(self, assume: str) -> Floats:
        """What the network is told where that is assumed; ConfigError where it does not know such pictures."""
        told, known = read_assumed(assume), self._network.num_coarseness
        if any(told[known:]) or not known:
            raise ConfigError(f"{self.name}: was not trained to be told {assume}; leave it out, or take another model")
        return np.array(told[:known], np.float32)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the model file says of itself: network, training data, licence, ..."""
        return self._network.metadata

    @property
    def identity(self) -> dict[str, str]:
        """What tells the results of this one from those of another; the size of tiles is no part of it."""
        return {
            "model": self.name,
            "sha256": checksum(Path(self.name)),
            "strength": f"{self.strength:g}",
            "runtime": self.runtime,
            "colors": "locked" if self._lock_colors else "free",
            **({} if self.assume is None else {"assumed": self.assume}),
        }

    def look(self, image: Pixels) -> Look:
        """What the picture as a whole tells, by patches all over it; tiles then agree about it.

        Args:
            image: as of `__call__`.
        """
        return self.look_at_strips(reader(image), *image.shape[:2])

    def taken_for(self, look: Look) -> str | None:
        """What a picture of that look is taken for, as `assume` has it; None where that is next to nothing."""
        if self.assume is not None or look.coarseness is None:
            return self.assume
        if look.earlier is not None:
            return f"jpeg:{look.earlier.qf}"
        values = look.coarseness
        if look.surface is not None:  # shares of what is all one
            values = values.sum() * (values == values.max())
        return as_assumed(values.tolist())

    def look_at_strips(self, read: Callable[[int], Pixels], height: int, width: int) -> Look:
        """As `look`, at a picture that comes in strips; arguments as of `strips`."""
        patches, is_gray = patches_of(read, height, width)
        scale = np.float32(np.iinfo(patches[0].dtype).max)
        lq = np.stack(patches).transpose(0, 3, 1, 2).astype(np.float32, order="C") / scale
        trim_memory()
        network = self._network
        if self._assumed is not None or network.estimate is None:
            jpeg = find_earlier_jpeg(lq)  # of two the blocks of the coarser one show
            return Look(self._assumed, find_grid(lq) if jpeg is None else jpeg.grid, is_gray)
        if has_few_colours(patches) or is_mosaic(lq):  # no compressed picture, whatever it looks like
            return Look(np.zeros(network.num_coarseness, np.float32), find_grid(lq), is_gray)
        estimate = network.estimate
        return look_at(lq, lambda blocks: self._run(estimate, blocks), is_gray)

    @overload
    def __call__(self, image: Pixels) -> Pixels: ...

    @overload
    def __call__(self, image: Image.Image) -> Image.Image: ...

    def __call__(self, image: Pixels | Image.Image) -> Pixels | Image.Image:
        """Gives the enhanced picture.

        Args:
            image: uint8 or uint16, (H, W, 3), any size from 1x1 on; or a picture of Pillow's, whose alpha and `info`
                stay as they are, and whose mode does if it is L, I;16, LA, RGB or RGBA. Others become RGB, or RGBA (L
                and La LA) where something is transparent, by Pillow, which knows of no profiles: one of CMYK or Lab is
                left out.
        Returns:
            The same type and shape, a new array or picture.
        Raises:
            ShapeError: an array that is no such picture.
            ModelError: the network failed, or gave values that are not numbers.
        """
        if not isinstance(image, np.ndarray):
            return self._enhance_pillow(image)
        dtype = image.dtype.newbyteorder("=")  # big-endian files are read as such
        if dtype not in (np.uint8, np.uint16) or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ShapeError(f"expected a picture of uint8 or uint16 (H, W, 3), got {image.dtype} {image.shape}")
        image = image.astype(dtype, copy=False)
        return self.with_look(image, self.look(image))

    def _enhance_pillow(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise ShapeError(f"expected an array or a picture of Pillow's, got {type(image).__name__}")
        if image.mode in ("I", "F"):
            raise ShapeError(f"expected 8 or 16 bits a channel, got a picture of Pillow's mode {image.mode}")
        if 0 in image.size:
            raise ShapeError(f"expected a picture of 1x1 px or more, got {image.width}x{image.height}")
        info = dict(image.info)
        if image.mode in ("CMYK", "LAB"):
            info.pop("icc_profile", None)
        if image.mode == "La":  # Pillow converts it to nothing but LA
            image = image.convert("LA")
        if image.mode.startswith("I;16"):
            levels = self(np.repeat(np.asarray(image, np.uint16)[..., None], 3, axis=2))
            out = Image.fromarray(np.ascontiguousarray(levels[..., 0]))
            info.pop("transparency", None)  # a level, which the result has elsewhere
        elif image.has_transparency_data:
            rgba = np.asarray(image.convert("RGBA"))
            better, hidden = self(seen_colours(rgba)), rgba[..., 3] == 0
            better[hidden] = rgba[hidden, :3]
            out = Image.fromarray(np.dstack((better, rgba[..., 3])))
            out = out.convert("LA") if image.mode in ("L", "LA") else out
            info.pop("transparency", None)  # a colour, or a place in a palette that is no more
        else:
            out = Image.fromarray(self(np.asarray(image.convert("RGB"))))
            out = out.convert("L") if image.mode == "L" else out
        out.info = info
        return out

    def with_look(self, image: Pixels, look: Look) -> Pixels:
        """As `__call__`, told what a look has found: frames of one clip have to agree about it."""
        out = np.empty_like(image, order="C")
        height, width = image.shape[:2]
        top = 0
        for strip in self.strips(reader(image), height, width, look):
            out[top : top + len(strip)] = strip
            top += len(strip)
        return out

    def strips(
        self,
        read: Callable[[int], Pixels],
        height: int,
        width: int,
        look: Look,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Pixels]:
        """Enhances a picture that comes and goes in strips, of which no more is held than one row of tiles.

        Args:
            read: gives the next n rows, uint8 or uint16, (n, W, 3); they are as many as were asked for.
            height: of the picture, in px.
            width: of the picture, in px.
            look: at the picture, by `look` or `look_at_strips`, since the first tile has to know.
            progress: called after each tile with the numbers of finished and all tiles; what it raises ends the work.
        Yields:
            The rows of the result from top to bottom, of the same type.
        Raises:
            ConfigError: the look lacks the coarseness that this network is told.
            ModelError: the network failed, or gave values that are not numbers.
        """
        if self._network.estimate is not None and look.coarseness is None:
            raise ConfigError(f"{self.name}: is told how coarse a picture is; take the look that `look` gives")
        top, left = (-first % BLOCK_PX for first in look.grid)
        earlier = beginning_earlier(read, top, left) if top or left else read
        with closing(self._strips(earlier, height + top, width + left, look.coarseness, progress)) as strips:
            for strip in strips:
                kept = strip[top:, left:]
                top = max(top - len(strip), 0)
                if len(kept):
                    yield _without_colour(kept) if look.is_gray else kept

    def _strips(
        self,
        read: Callable[[int], Pixels],
        height: int,
        width: int,
        coarseness: Floats | None,
        progress: Callable[[int, int], None] | None,
    ) -> Generator[Pixels, None, None]:
        memory = memory_bytes()
        bytes_px = self._network.bytes_px + _OWN_BYTES_PX
        at_hand = _TILE_BYTES if memory is None else max(int(memory * _TILE_SHARE), _LEAST_AREA * bytes_px)
        area = min(_TILE_BYTES, at_hand) // bytes_px
        rows_px = max(_BAND_BYTES // (_BAND_BYTES_PX * width), LEAST_OVERLAPS * self._network.reach_px)
        plan = self._plan(height, width, self._tile_px, min(area, _BROADEST * rows_px**2), rows_px)
        bands = [list(tiles) for _, tiles in groupby(plan, key=attrgetter("rows"))]
        ends = [band[0].rows.keep_start for band in bands[1:]] + [height]
        lock: ColorLock | None = None
        fading = np.zeros((0, width, 3), np.uint16)  # rows of the result that the next band fades into
        done = 0
        with closing(self._compute(bands, read, height, coarseness)) as tiles:
            for band, end in zip(bands, ends, strict=True):
                rows = band[0].rows
                result = np.zeros((min(rows.keep_stop, height) - rows.keep_start, width, 3), np.uint16)
                result[: len(fading)] = fading
                for tile in band:
                    lq, out = next(tiles)
                    tile.write(out.result(), result)
                    del out  # a tile's worth of memory, while the next is waited for
                    done += 1
                    if progress is not None:
                        progress(done, len(plan))
                kept = end - rows.keep_start
                result, fading = result[:kept], result[kept:].copy()  # a view would keep the whole band
                lq = lq[: len(result)]
                lock = lock or ColorLock(height, lq.dtype)
                count = max(_GIVEN_PX // width, _GIVEN_ROWS)
                for first in range(0, len(result), count):
                    some = slice(first, first + count)
                    yield lock(lq[some], result[some]) if self._lock_colors else _round(result[some], lq.dtype)
                del lq, result  # before as much is taken for the next

    def _compute(
        self, bands: list[list[Tile]], read: Callable[[int], Pixels], height: int, coarseness: Floats | None
    ) -> Generator[tuple[Pixels, Future[Floats]], None, None]:
        """Gives for each tile the input's rows from its `keep_start` on, and the network's output.

        The network is one tile ahead, in a thread of its own, so that all its cores work while rows are read, finished
        and written.
        """
        seen, top = read(0), 0
        network = ThreadPoolExecutor(1)
        try:
            ahead: tuple[Pixels, Future[Floats]] | None = None
            for band in bands:
                rows = band[0].rows
                seen, top = read_on(seen[rows.start - top :], read, min(rows.stop, height) - rows.start), rows.start
                trim_memory()
                for tile in band:
                    out = submit(network, self._enhance, tile.read(seen), coarseness)
                    if ahead:
                        yield ahead
                    ahead = seen[rows.keep_start - rows.start :], out
            if ahead:
                yield ahead
        finally:
            network.shutdown(cancel_futures=True)  # an interrupted picture waits for one tile, not for two

    def _plan(self, height: int, width: int, tile_px: int | None, area: int, rows: int | None = None) -> list[Tile]:
        network = self._network
        return plan_tiles(
            height,
            width,
            overlap_px=network.reach_px,
            stride_px=network.stride_px,
            tile_px=tile_px,
            max_area=area,
            max_rows=rows,
        )

    def _enhance(self, lq: Floats, coarseness: Floats | None) -> Floats:
        """The network's output for a tile, which is cut again where memory does not suffice."""
        try:
            return self._run(self._network.run, lq, coarseness)
        except OutOfMemoryError:
            height, width = lq.shape[2:]
            parts = self._plan(height, width, None, height * width // 4)
            if len(parts) < 2 or height * width <= _LEAST_AREA:
                raise
        out = np.empty_like(lq)
        for rows, cols in ((part.rows, part.cols) for part in parts):
            better = self._enhance(lq[:, :, rows.start : rows.stop, cols.start : cols.stop].copy(), coarseness)
            kept = better[:, :, rows.keep_start - rows.start :, cols.keep_start - cols.start :]
            place = out[:, :, rows.keep_start : rows.keep_stop, cols.keep_start : cols.keep_stop]
            place[...] = kept[:, :, : place.shape[2], : place.shape[3]]
        return out

    def _run(self, compute: Callable[..., Floats], lq: Floats, *rest: Any) -> Floats:
        """What the network or its estimator makes of a tile; their failures get one line."""
        try:
            values = compute(lq, *rest)
        except Exception as error:  # each runtime has its own classes
            size, reason = f"{lq.shape[3]}x{lq.shape[2]}", first_line(error)
            kind = OutOfMemoryError if _is_of_memory(error) else ModelError
            raise kind(f"{self.name}: failed on a tile of {size} px ({reason})") from error
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise ModelError(f"{self.name}: the network gave values that are not numbers; is the file damaged?")
        return values


class OutOfMemoryError(ModelError):
    """The network did not fit into memory with a tile of this size."""


def _is_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "alloc" in text or "out of memory" in text


def _without_colour(strip: Pixels) -> Pixels:
    """(n, W, 3), each channel the rounded mean of all."""
    mean = ((strip.sum(axis=2, keepdims=True, dtype=np.uint32) + 1) // 3).astype(strip.dtype)
    return np.repeat(mean, 3, axis=2)


def _round(result: NDArray[np.uint16], dtype: np.dtype[Any]) -> Pixels:
    """Levels of `dtype`."""
    return result if result.dtype == dtype else np.rint(result / np.float32(257)).astype(dtype)
