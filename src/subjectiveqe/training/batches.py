"""The endless stream of batches: batch s of a run is a pure function of the recipe and s, wherever the run was cut."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import DataConfig
from ..data.pairs import FilePairs, PairSet
from ..data.patches import Patches
from ..data.store import open_pairs
from ..errors import SubjectiveQEError, first_line
from ..images import RGB
from ..machine import cpu_count


class Batch(NamedTuple):
    """Patches as the networks take them: float32 RGB in [0, 1], channels last in memory; the rest as in `Patch`."""

    lq: Tensor  # (N, 3, H, W)
    gt: Tensor  # (N, 3, H, W)
    grid: Tensor  # int64 (N, 2)
    coarseness: Tensor  # float32 (N, num_coarseness of the network)
    emphasis: Tensor  # float32 (N,), how much percep counts

    def split(self, count: int) -> list[Batch]:
        """`count` equal parts along the batch."""
        return [Batch(*parts) for parts in zip(*(tensor.chunk(count) for tensor in self), strict=True)]


_Sample = tuple[RGB, RGB, NDArray[np.int64], NDArray[np.float32], np.float32]


class _PatchDataset(Dataset[_Sample]):
    def __init__(self, patches: Patches, emphasis: Sequence[float]) -> None:
        self.patches, self.emphasis = patches, emphasis

    def __getitem__(self, index: int) -> _Sample:
        lq, gt, grid, coarseness, number = self.patches[index]
        emphasis = np.float32(self.emphasis[number])
        return lq, gt, np.array(grid, np.int64), np.array(coarseness, np.float32), emphasis


class _ShareOfEachBatch(Sampler[list[int]]):
    """Patch numbers step * batch + i, of which this process takes its contiguous share."""

    def __init__(self, start_step: int, batch: int, rank: int, world_size: int) -> None:
        self.start_step, self.batch = start_step, batch
        share = batch // world_size
        self.mine = range(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield [step * self.batch + i for i in self.mine]
            step += 1


def stream(
    config: DataConfig,
    seed: int,
    batch: int,
    start_step: int,
    rank: int,
    world_size: int,
    device: torch.device,
    num_coarseness: int,
) -> Iterator[Batch]:
    """Yields this process's share of the batches start_step, start_step + 1, ... without end.

    `num_coarseness` is of the network that will be told.
    """
    sets = [open_pairs(path) for path in config.pairs]
    patches = Patches(sets, config.patch_px, seed, config.aligned, config.coarseness_noise, num_coarseness)
    workers = min(config.workers, cpu_count())
    loader = DataLoader(
        _PatchDataset(patches, config.emphasis or [1.0] * len(sets)),
        batch_sampler=_ShareOfEachBatch(start_step, batch, rank, world_size),
        num_workers=workers,
        prefetch_factor=8 if workers else None,  # rides out reads that miss the page cache
        pin_memory=device.type == "cuda",
        multiprocessing_context=_way_to_start(sets) if workers else None,
    )
    for lq, gt, *rest in _told_plainly(loader):
        known = (tensor.to(device, non_blocking=True) for tensor in rest)
        yield Batch(_to_network(lq, device), _to_network(gt, device), *known)


def _way_to_start(sets: Sequence[PairSet]) -> str | None:
    """How workers start; None for the usual way.

    Forked from a process that has used libvips they could not read picture files, which are libvips' business but for
    plain PNG.
    """
    has_files = any(isinstance(pairs, FilePairs) for pairs in sets)
    return "forkserver" if has_files and "forkserver" in multiprocessing.get_all_start_methods() else None


def _told_plainly(loader: Iterable[Any]) -> Iterator[Any]:
    """What a worker fails with is an error of the same class whose text holds the worker's whole traceback."""
    try:
        yield from loader
    except SubjectiveQEError as error:
        if "Traceback" not in str(error):
            raise
        name = type(error).__name__
        raise type(error)(str(error).rpartition(f"{name}: ")[2].strip()) from None
    except RuntimeError as error:
        if not any(words in str(error) for words in ("shared memory", "resize file", "DataLoader worker (pid")):
            raise
        raise SubjectiveQEError(
            f"data.workers: one has failed ({first_line(error)}); give memory that processes share more room "
            "(docker run --shm-size), or --set data.workers=0"
        ) from None


def _to_network(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in [0, 1], without moving a byte: NHWC *is* channels_last."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
