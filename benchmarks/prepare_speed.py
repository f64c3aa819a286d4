"""Compares the pictures per second of `prepare` (codec hevc) with what HM's recorded seconds allow; prints Markdown.

    python benchmarks/prepare_speed.py KODAK_FOLDER HM_CSV

`prepare` is timed from call to complete store: starting the workers, reading, coding, decoding, writing. HM is given
nothing but its encoding: `jobs` encoders side by side, each taking the mean `encode_s` of the CSV at that QP. Run it on
an idle machine. On a busy one the seconds say little; then the processor seconds that `prepare` used, all processes
together, give the rate that as many free cores would allow.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import mean

from machine import describe
from subjectiveqe.data.prepare import prepare


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the Kodak pictures")
    parser.add_argument("csv", type=Path, help="HM's figures")
    parser.add_argument("--qp", type=int, nargs="+", default=[37])
    parser.add_argument("--jobs", type=int, default=2, help="processes, ours and HM's")
    arguments = parser.parse_args()

    with arguments.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    print(f"{describe()}; {arguments.jobs} processes; load average before the start {os.getloadavg()[0]:.1f}\n")
    print("| QP | pictures | HM pictures/s | seconds | pictures/s | ratio | processor seconds | pictures/s | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for qp in arguments.qp:
        hm_rate = arguments.jobs / mean(float(row["encode_s"]) for row in rows if int(row["qp"]) == qp)
        pictures, seconds, processor = run(arguments.folder, qp, arguments.jobs)
        cells = [f"{qp} | {pictures} | {hm_rate:.2f}"]
        for taken, rate in ((seconds, pictures / seconds), (processor, arguments.jobs * pictures / processor)):
            cells.append(f"{taken:.1f} | {rate:.2f} | {rate / hm_rate:.1f}")
        print(f"| {' | '.join(cells)} |", flush=True)


def run(folder: Path, qp: int, jobs: int) -> tuple[int, float, float]:
    """Makes a store in a temporary folder; gives its pictures, the seconds, and those of the processors."""
    with tempfile.TemporaryDirectory() as out:
        start, used = time.perf_counter(), processor_seconds()
        made = prepare(folder, Path(out) / "store", "hevc", [qp], jobs=jobs)
        return made.pictures, time.perf_counter() - start, processor_seconds() - used


def processor_seconds() -> float:
    """Processor time of this process and of those it started that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
