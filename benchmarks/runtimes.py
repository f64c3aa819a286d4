"""The bundled models in every runtime beside the seed's RRDBNet in PyTorch (float32, eager), file to file, in one run.

All read the same 12-megapixel JPEG and write a JPEG, on the same cores. The seed's network works on tiles of 512 px
without overlap, which is the least it can do; its weights are random, which costs the same time. Everything runs in
turn several times, since a machine that is shared is not as fast at all times; the medians of the ratios count. Each
command has run once before, so that OpenVINO finds what it has compiled, as at every start but the first.
"of the matrix product" is the rate of multiply-adds of the network over that of a 2048^3 product in the same type, by
PyTorch on all cores: only what a picture needs is counted, not the overlap of tiles, and start, reading and writing
take their share.
What a runtime costs in LPIPS says runtimes_lpips.py.

python benchmarks/runtimes.py [--case MODEL:RUNTIME ...] [--seed-fraction 1.0] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import machine
from measured import Measured, enhance_command, make_picture, measure
from subjectiveqe.enhancing.openvino_engine import openvino_core
from subjectiveqe.machine import cpu_count

HEIGHT, WIDTH = 3000, 4000
SEED_TILE_PX = 512
MULTIPLY_ADDS_PX = 60e3
"""Of `UNet` at its default sizes."""
MATRIX_SIDE = 2048
CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "sqe-fast.safetensors"
CASES = (
    "fast-int8:openvino",
    "fast-int8:onnxruntime",
    "fast:openvino",
    "fast:onnxruntime",
    f"{CHECKPOINT}:torch",
)


def main() -> None:
    """Measures all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", help="MODEL:RUNTIME; all that are bundled when left out")
    parser.add_argument(
        "--seed-fraction", type=float, default=1.0, help="share of the rows given to the seed's network"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run-seed", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_seed:
        return run_seed(*options.run_seed, options.seed_fraction)
    cases = [tuple(case.rsplit(":", 1)) for case in options.case or CASES]
    kinds = {type_of(*case) for case in cases}  # the others may take minutes here
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jpg", Path(folder) / "out.jpg"
        make_picture(source, HEIGHT, WIDTH)
        for model, runtime in cases:
            measure(enhance_command(source, out, Path(model), runtime))
            out.unlink()
        rounds: list[list[Measured]] = []  # the seed's comes last
        products_s: list[dict[str, float]] = []
        for _ in range(options.repeats):
            products_s.append({kind: time_product(kind) for kind in kinds})
            rounds.append([])
            for model, runtime in cases:
                rounds[-1].append(measure(enhance_command(source, out, Path(model), runtime)))
                out.unlink()
            rounds[-1].append(measure_seed(source, out, options.seed_fraction))
            out.unlink()
    print(machine.describe())
    print(f"{WIDTH}x{HEIGHT} px, file to file, medians of {options.repeats}")
    if options.seed_fraction < 1:
        print(f"the seed's network was given {options.seed_fraction:.0%} of the rows; its time on them is scaled up")
    print(
        "| model | runtime | s | MP/s | times the seed (spread) | by processor time | of a matrix product | peak GB |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    work = HEIGHT * WIDTH * MULTIPLY_ADDS_PX / MATRIX_SIDE**3  # in matrix products
    for number, (model, runtime) in enumerate(cases):
        runs = [each[number] for each in rounds]
        wall = [each[-1].wall_s / each[number].wall_s for each in rounds]
        cpu = [each[-1].cpu_s / each[number].cpu_s for each in rounds]
        kind = type_of(model, runtime)
        share = statistics.median(work * s[kind] / run.wall_s for s, run in zip(products_s, runs, strict=True))
        used = median(runs)
        print(
            f"| {Path(model).name} | {runtime} | {used.wall_s:.1f} | {HEIGHT * WIDTH / 1e6 / used.wall_s:.3f} | "
            f"{statistics.median(wall):.1f} ({min(wall):.1f} to {max(wall):.1f}) | {statistics.median(cpu):.1f} | "
            f"{share:.0%} of {kind} | {used.peak_bytes / 1e9:.2f} |"
        )
    seed = median([each[-1] for each in rounds])
    rate = f"{seed.wall_s:.1f} | {HEIGHT * WIDTH / 1e6 / seed.wall_s:.3f}"
    print(f"| the seed's RRDBNet | PyTorch float32 | {rate} | 1 | 1 | | {seed.peak_bytes / 1e9:.2f} |")


def type_of(model: str, runtime: str) -> str:
    """What most multiply-adds are done in: float32, bfloat16 or int8."""
    if "int8" in model:
        return "int8"
    has_bfloat16 = runtime == "openvino" and "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if has_bfloat16 else "float32"


def time_product(kind: str) -> float:
    """Seconds of a 2048^3 matrix product, the best of five, by PyTorch on all cores; `kind` as of `type_of`."""
    import torch

    torch.set_num_threads(cpu_count())
    a = torch.randint(-64, 64, (MATRIX_SIDE, MATRIX_SIDE)).to(getattr(torch, kind))
    multiply = torch._int_mm if kind == "int8" else torch.mm
    seconds = []
    for _ in range(5):
        start_s = time.perf_counter()
        multiply(a, a)
        seconds.append(time.perf_counter() - start_s)
    return min(seconds)


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
    from PIL import Image

    from subjectiveqe.images import read_rgb
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
    Image.fromarray(result).save(out, quality=95, subsampling=0)


if __name__ == "__main__":
    main()
