"""What a benchmark ran on: one line to print beside every table."""

from __future__ import annotations

import platform
import subprocess
from datetime import date
from pathlib import Path

from subjectiveqe.evaluating.write import processor_name
from subjectiveqe.machine import cpu_count


def describe() -> str:
    """Processor, cores this process may use, Python, commit and date."""
    cores = f"{processor_name()}, {cpu_count()} cores"
    return f"{cores}, Python {platform.python_version()}, commit {_commit()}, {date.today()}"


def _commit() -> str:
    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
