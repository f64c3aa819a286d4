"""`sqe enhance` beside the seed's RRDBNet in PyTorch (float32, eager, default memory format), file to file, one run.

Both read the same 12-megapixel JPEG and write a PNG, on the same cores. The seed's network works on tiles of 512 px
without overlap, which is the least it can do; its weights are random, which costs the same time. Two ratios: by the
clock, and by processor time of all threads, which says more where other programs are running.

python benchmarks/enhance_speed.py [--model FILE] [--runtime NAME] [--seed-fraction 1.0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import machine
from measured import enhance_command, make_picture, measure

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
    parser.add_argument("--run-seed", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_seed:
        return run_seed(*options.run_seed, options.seed_fraction)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jpg", Path(folder) / "out.png"
        make_picture(source, HEIGHT, WIDTH)
        ours = measure(enhance_command(source, out, options.model, options.runtime))
        fraction = ["--seed-fraction", str(options.seed_fraction)]
        seed = measure([sys.executable, __file__, "--run-seed", str(source), str(out), *fraction])
    megapixels = HEIGHT * WIDTH / 1e6
    scale = 1 / options.seed_fraction
    print(machine.describe())
    print(f"model {options.model or 'bundled'}, runtime {options.runtime}, {WIDTH}x{HEIGHT} px, file to file")
    if scale != 1:
        print(f"the seed's network was given {options.seed_fraction:.0%} of the rows; its times are scaled up")
    print("| | s | MP/s | processor s | peak GB |\n|---|---|---|---|---|")
    for name, used, factor in (("sqe enhance", ours, 1), ("seed's RRDBNet, PyTorch float32", seed, scale)):
        wall_s, cpu_s = used.wall_s * factor, used.cpu_s * factor
        print(f"| {name} | {wall_s:.1f} | {megapixels / wall_s:.3f} | {cpu_s:.1f} | {used.peak_bytes / 1e9:.2f} |")
    wall, cpu = seed.wall_s * scale / ours.wall_s, seed.cpu_s * scale / ours.cpu_s
    print(f"{wall:.1f}x by the clock, {cpu:.1f}x by processor time (target {TARGET}x)")


def run_seed(source: Path, out: Path, fraction: float) -> None:
    """The other side: the seed's network as its users would run it."""
    import torch

    from subjectiveqe.enhancing.runtime import cpu_count
    from subjectiveqe.images import read_rgb, write_png
    from subjectiveqe.nets import RRDBNet

    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    net = RRDBNet().eval()
    image = read_rgb(source)
    image = image[: round(len(image) * fraction)]
    result = image.copy()
    with torch.inference_mode():
        for top in range(0, image.shape[0], SEED_TILE_PX):
            for left in range(0, image.shape[1], SEED_TILE_PX):
                part = (slice(top, top + SEED_TILE_PX), slice(left, left + SEED_TILE_PX))
                lq = torch.from_numpy(image[part]).permute(2, 0, 1)[None].float() / 255
                values = net(lq)[0].mul(255).round().clamp(0, 255)
                result[part] = values.to(torch.uint8).permute(1, 2, 0).numpy()
    write_png(out, result)


if __name__ == "__main__":
    main()
