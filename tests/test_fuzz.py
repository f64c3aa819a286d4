"""Damaged pictures: no crash, no hang, no traceback, nothing half-written, no memory to speak of."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from subjectiveqe.formats.photos import FORMATS

MOST_BYTES = 1_000_000_000
"""What may be resident at any time."""

ADDRESSES_KB = 8_000_000
"""What the process may map, of which libraries alone take two gigabytes: a runaway ends before the machine does."""


@pytest.mark.parametrize("mutants", [150, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("kind", "format_out", "faithful"),
    [
        ("jpeg", "png", False),
        ("png", "png", False),
        ("webp", "png", False),
        ("heic", "tiff", False),
        ("avif", "png", False),
        ("tiff", "tiff", False),
        ("gif", "gif", False),
        ("jpeg", "jpeg", True),
    ],
)
def test_mutants_are_enhanced_or_refused_in_one_line(tmp_path, tiny_model, kind, format_out, faithful, mutants):
    if faithful and importlib.util.find_spec("jpeglib") is None:
        pytest.skip("jpeglib is not installed")
    script = Path(__file__).with_name("fuzz_photos.py")
    command = [sys.executable, str(script), str(tiny_model), str(tmp_path), kind, format_out]
    command += [str(faithful), str(mutants), "7"]
    limited = ["/bin/sh", "-c", f'ulimit -v {ADDRESSES_KB} 2>/dev/null; exec "$@"', "sh", *command]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait by spinning take twice the time here
    run = subprocess.run(limited, capture_output=True, text=True, timeout=60 + mutants, check=False, env=alone)
    assert run.returncode == 0, f"{run.returncode}: {run.stderr[-2000:]}"
    assert "Traceback" not in run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert len(told["statuses"]) == mutants
    assert set(told["statuses"]) == {"done", "failed"}
    assert all("\n" not in reason and len(reason) < 400 for reason in told["reasons"])
    unforeseen = {why: number for why, number in told["reasons"].items() if why.startswith("cannot be enhanced (")}
    assert unforeseen == {}
    assert told["left"] == [f"fuzz{FORMATS[format_out][0]}"] or told["left"] == [f"fuzz.{kind}"]
    assert told["peak_bytes"] < MOST_BYTES
