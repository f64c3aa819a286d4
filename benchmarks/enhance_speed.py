"""`sqe enhance` beside the seed's RRDBNet in PyTorch (float32, eager, default memory format), file to file, one run.

Both read the same 12-megapixel JPEG and write a PNG, on the same cores. The seed's network works on tiles of 512 px
without overlap, which is the least it can do; its weights are random, which costs the same time. Two ratios: by the
clock, and by processor time of all threads, which says more where other programs are running. Both sides run in turn
several times, since a machine that is shared is not as fast at all times; the medians count.

python benchmarks/enhance_speed.py [--model FILE] [--runtime NAME] [--seed-fraction 1.0] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import machine
from measured import Measured, enhance_command, make_picture, measure

HEIGHT, WIDTH = 3000, 4000
SEED_TILE_PX = 512
TARGET = 20


def main() -> None:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument(
        "--seed-fraction", type=float, default=1.0, help="share of the rows given to the seed's network"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run-seed", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_seed:
        return run_seed(*options.run_seed, options.seed_fraction)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jpg", Path(folder) / "out.png"
        make_picture(source, HEIGHT, WIDTH)
        ours, seed = [], []
        for _ in range(options.repeats):
            ours.append(measure(enhance_command(source, out, options.model, options.runtime)))
            out.unlink()
            seed.append(measure_seed(source, out, options.seed_fraction))
            out.unlink()
    megapixels = HEIGHT * WIDTH / 1e6
    print(machine.describe())
    print(f"model {options.model or 'bundled'}, runtime {options.runtime}, {WIDTH}x{HEIGHT} px, file to file")
    if options.seed_fraction < 1:
        print(f"the seed's network was given {options.seed_fraction:.0%} of the rows; its time on them is scaled up")
    print(f"medians of {options.repeats}")
    print("| | s | MP/s | processor s | peak GB |\n|---|---|---|---|---|")
    for name, runs in (("sqe enhance", ours), ("seed's RRDBNet, PyTorch float32", seed)):
        used = median(runs)
        rate, peak_gb = megapixels / used.wall_s, used.peak_bytes / 1e9
        print(f"| {name} | {used.wall_s:.1f} | {rate:.3f} | {used.cpu_s:.1f} | {peak_gb:.2f} |")
    wall = [theirs.wall_s / mine.wall_s for mine, theirs in zip(ours, seed, strict=True)]
    cpu = [theirs.cpu_s / mine.cpu_s for mine, theirs in zip(ours, seed, strict=True)]
    for kind, ratios in (("the clock", wall), ("processor time", cpu)):
        spread = f"{min(ratios):.1f}x to {max(ratios):.1f}x"
        print(f"{statistics.median(ratios):.1f}x by {kind} ({spread}; target {TARGET}x)")


def median(runs: list[Measured]) -> Measured:
    """Each figure's own median."""
    wall_s, cpu_s, peaks = zip(*((run.wall_s, run.cpu_s, run.peak_bytes) for run in runs), strict=True)
    return Measured(statistics.median(wall_s), statistics.median(cpu_s), round(statistics.median(peaks)))


def measure_seed(source: Path, out: Path, fraction: float) -> Measured:
    """The seed's side; from a part of the rows it is scaled up, but not what start, reading and writing take."""
    command = [sys.executable, __file__, "--run-seed", str(source), str(out), "--seed-fraction"]
    part = measure([*command, str(fraction)])
    if fraction == 1:
        return part
    fixed = measure([*command, "0"])
    return Measured(
        fixed.wall_s + (part.wall_s - fixed.wall_s) / fraction,
        fixed.cpu_s + (part.cpu_s - fixed.cpu_s) / fraction,
        part.peak_bytes,
    )


def run_seed(source: Path, out: Path, fraction: float) -> None:
    """The other side: the seed's network as its users would run it."""
    import torch

    from subjectiveqe.images import read_rgb, write_png
    from subjectiveqe.machine import cpu_count
    from subjectiveqe.nets import RRDBNet

    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    net = RRDBNet().eval()
    image = read_rgb(source)
    result = image.copy()
    bottom = round(len(image) * fraction)
    with torch.inference_mode():
        for top in range(0, bottom, SEED_TILE_PX):
            for left in range(0, image.shape[1], SEED_TILE_PX):
                part = (slice(top, min(top + SEED_TILE_PX, bottom)), slice(left, left + SEED_TILE_PX))
                lq = torch.from_numpy(image[part]).permute(2, 0, 1)[None].float() / 255
                values = net(lq)[0].mul(255).round().clamp(0, 255)
                result[part] = values.to(torch.uint8).permute(1, 2, 0).numpy()
    write_png(out, result)


if __name__ == "__main__":
    main()
