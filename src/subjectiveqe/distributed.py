"""The little that several training processes (`torchrun`) need; one process pays nothing.

Plain all-reduce of the gradients after the backward pass, instead of a wrapper around each network: a GAN step runs the
discriminator several times, frozen and not, which wrappers forbid or make slow, and the step stays readable.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import ConfigError, SubjectiveQEError

LONGEST_WAIT = datetime.timedelta(days=1)
"""For each other: while the first process validates, which may take hours, the others wait."""


def own_device() -> torch.device:
    """The GPU of this process, one each, or the CPU where there is none.

    Raises:
        ConfigError: there are more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= gpus:
        raise ConfigError(f"process {number} of this machine has no GPU; start {gpus}, by --nproc-per-node {gpus}")
    return torch.device("cuda", number)


def start(device: torch.device) -> None:
    """Joins the other processes when `torchrun` started this one; else does nothing."""
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where `barrier` works too
            dist.init_process_group("nccl", timeout=LONGEST_WAIT, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=LONGEST_WAIT)


def stop() -> None:
    """Leaves the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 first."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def _others_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SubjectiveQEError("another process has ended; its own message says why") from error


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a scalar over all processes; gradients flow back to each of them."""
    if world_size() == 1:
        return value
    mean: Tensor = _Sum.apply(value) / world_size()  # type: ignore[no-untyped-call]
    return mean


class _Sum(torch.autograd.Function):
    """Over all processes, forwards and backwards."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        with _others_needed():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(_, gradient)


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over all processes, in one message."""
    if world_size() == 1:
        return
    grads = [param.grad for param in params if param.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    with _others_needed():
        dist.all_reduce(flat)
    flat /= world_size()
    for grad, mean in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def wait_for_all() -> None:
    """Returns when every process has come here, e.g. while rank 0 validates and writes."""
    if dist.is_initialized():
        with _others_needed():
            dist.barrier()
