"""From the command line to the first picture: `sqe enhance` on a small one, in a new process for every run.

Beside it the least that an engine takes: Python, and the import of its package. All take turns, since a machine that is
shared is not as fast at all times, and each has run once before: OpenVINO then finds what it has compiled, and Python
what it has made of the sources, as at every start but the first. Processor time says what is done; wall time is what
people wait for, and means little where others use the cores.

python benchmarks/start_up.py [--model MODEL] [--repeats 9]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
from pathlib import Path

import machine
from measured import Measured, enhance_command, make_picture, measure

HEIGHT, WIDTH = 128, 160
RUNTIMES = ("onnxruntime", "openvino")
"""Those that run the bundled models."""


def main() -> None:
    """Measures all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="the default of each runtime when left out")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code, which saves 0.3 s
    installed = [name for name in RUNTIMES if importlib.util.find_spec(name) is not None]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jpg", Path(folder) / "out.jpg"
        make_picture(source, HEIGHT, WIDTH)
        commands = {"python -c pass": [sys.executable, "-c", "pass"]}
        for name in installed:
            commands[f'python -c "import {name}"'] = [sys.executable, "-c", f"import {name}"]
            commands[f"sqe enhance --runtime {name}"] = enhance_command(source, out, options.model, name)
        for command in commands.values():
            run(command, out)
        rounds = [{name: run(command, out) for name, command in commands.items()} for _ in range(options.repeats)]
    print(machine.describe())
    load = f", {os.getloadavg()[0]:.1f} processes at once in the last minute" if hasattr(os, "getloadavg") else ""
    print(f"{WIDTH}x{HEIGHT} px, file to file, medians of {options.repeats} (least to most){load}")
    print("| command | wall s | processor s |\n|---|---|---|")
    for name in commands:
        runs = [each[name] for each in rounds]
        print(f"| `{name}` | {spread([r.wall_s for r in runs])} | {spread([r.cpu_s for r in runs])} |")


def run(command: list[str], out: Path) -> Measured:
    """Measures a command and removes what it wrote."""
    measured = measure(command)
    out.unlink(missing_ok=True)
    return measured


def spread(seconds: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
