"""What of the machine this process may use."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path


def cpu_count(root: Path = Path("/")) -> int:
    """CPUs this process may really use: its affinity and its control groups' quotas, not what the machine has.

    Args:
        root: of the file system that knows the quotas.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu", root):
        with suppress(OSError, ValueError):  # no such group, or "max"
            if (group / "cpu.max").is_file():
                quota, period = map(int, (group / "cpu.max").read_text().split())
            else:
                quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0:
                count = min(count, -(-quota // period))
    return count


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the groups that this process is in, each with all that it is part of, which have limits of their own.

    Those of the layout that all controllers share come first, then those that a controller has to itself.
    """
    within = {"": "", controller: ""}
    with suppress(OSError):
        # Bytes, since names of groups need be no UTF-8 and may hold what `splitlines` splits at.
        for line in os.fsdecode((root / "proc/self/cgroup").read_bytes()).split("\n"):
            with suppress(ValueError):  # no line of three parts, as the last
                _, controllers, group = line.split(":", 2)
                within |= dict.fromkeys({controller, ""}.intersection(controllers.split(",")), group.strip("/"))
    for layout, group in within.items():
        top = root / "sys/fs/cgroup" / layout
        innermost = top / group  # not seen from inside a container, which sees its own at the top
        yield from (folder for folder in (innermost, *innermost.parents) if folder.is_relative_to(top))


def cpu_info(name: str, root: Path = Path("/")) -> str:
    """What Linux says of the first CPU, e.g. under "model name" or "flags"; empty elsewhere.

    Args:
        name: as in /proc/cpuinfo.
        root: of the file system that says so.
    """
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def package_version(package: str) -> str | None:
    """Of the distribution that a package came with, which may have another name (onnxruntime-gpu); None without one."""
    names = _distributions().get(package, [package])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory this process may still take: what the machine has free, or less where its control groups have limits.

    Args:
        root: of the file system that says so.
    Returns:
        None on systems that do not say.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for group in _control_groups("memory", root):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # no such group, or "max"
                used = int((group / usage).read_text()) - _cached_bytes(group / "memory.stat")
                found.append(max(int((group / limit).read_text()) - used, 0))
    return min(found, default=None)


def _cached_bytes(stat: Path) -> int:
    """What a control group's usage counts of files read and written lately, which gives way when memory is wanted."""
    if not stat.is_file():
        return 0
    counts = dict(line.split() for line in stat.read_text().splitlines())
    whole = "total_" if "total_cache" in counts else ""  # the old layout has the group's own and, with its parts, all
    return sum(int(counts.get(f"{whole}{kind}_file", 0)) for kind in ("active", "inactive"))


def trim_memory() -> None:
    """Gives the system back what was freed; glibc keeps it, in pieces that libvips and large arrays seldom fit into."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)
