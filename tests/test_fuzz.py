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

MUTANTS = int(os.environ.get("SQE_FUZZ_MUTANTS", "150"))
"""For each pair of formats; thousands take minutes."""

ADDRESSES_KB = 8_000_000
"""What the process may map; libraries alone map two gigabytes."""


@pytest.mark.parametrize(
    ("kind", "format_out", "faithful"),
    [
        ("jpeg", "png", False),
        ("png", "png", False),
        ("webp", "png", False),
        ("heic", "tiff", False),
        ("tiff", "tiff", False),
        ("jpeg", "jpeg", True),
    ],
)
def test_mutants_are_enhanced_or_refused_in_one_line(tmp_path, tiny_model, kind, format_out, faithful):
    if faithful and importlib.util.find_spec("jpeglib") is None:
        pytest.skip("jpeglib is not installed")
    script = Path(__file__).with_name("fuzz_photos.py")
    command = [sys.executable, str(script), str(tiny_model), str(tmp_path), kind, format_out]
    command += [str(faithful), str(MUTANTS), "7"]
    limited = ["/bin/sh", "-c", f'ulimit -v {ADDRESSES_KB} 2>/dev/null; exec "$@"', "sh", *command]
    run = subprocess.run(limited, capture_output=True, text=True, timeout=60 + MUTANTS, check=False)
    assert run.returncode == 0, f"{run.returncode}: {run.stderr[-2000:]}"
    assert "Traceback" not in run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert len(told["statuses"]) == MUTANTS
    assert "failed" in told["statuses"]
    assert set(told["statuses"]) <= {"done", "failed"}
    assert all("\n" not in reason and len(reason) < 400 for reason in told["reasons"])
    assert [reason for reason in told["reasons"] if reason.startswith("cannot be enhanced (")] == []  # not foreseen
    assert told["left"] in ([], [f"fuzz{FORMATS[format_out][0]}"], [f"fuzz.{kind}"])
