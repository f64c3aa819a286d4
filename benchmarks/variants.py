"""Runs of one recipe that differ in some settings, for benchmarks that compare them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def train(recipe: Path, start: Path, run: Path, settings: Mapping[str, object]) -> Path:
    """Trains a variant from weights, or goes on with it; gives its folder back."""
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ["train", recipe, "--init-from", start, "--run-dir", run, "--resume", *changes]
    subprocess.run([sys.executable, "-m", "subjectiveqe", *map(str, command)], check=True, stdout=sys.stderr)
    return run
