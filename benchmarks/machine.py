"""What a benchmark ran on: one line to print beside every table."""

from __future__ import annotations

import platform
import subprocess
from datetime import date
from pathlib import Path

from subjectiveqe.machine import cpu_count


def describe() -> str:
    """Processor, cores this process may use, Python, commit and date."""
    return (
        f"{_processor()}, {cpu_count()} cores, Python {platform.python_version()}, commit {_commit()}, {date.today()}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
