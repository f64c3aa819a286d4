"""The enhancer, its tiles and runtimes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import locale
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from subjectiveqe import doctor
from subjectiveqe.codecs import get_codec
from subjectiveqe.codecs.coarseness import coarseness
from subjectiveqe.enhancing import openvino_engine
from subjectiveqe.enhancing import runtime as runtimes
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.look import Look, look_places, mean_look, with_file
from subjectiveqe.enhancing.tells import whole_blocks
from subjectiveqe.enhancing.tiling import plan_tiles
from subjectiveqe.errors import ConfigError, ModelError, ShapeError
from subjectiveqe.images import read_rgb
from subjectiveqe.metrics import psnr
from subjectiveqe.samples import samples

SIZES = [(1, 1), (7, 13), (64, 65), (200, 33)]


@pytest.fixture(scope="session")
def unet_path(tmp_path_factory):
    """A very small U-Net whose every layer has a say, as safetensors."""
    torch = pytest.importorskip("torch")
    from subjectiveqe.nets import UNet
    from subjectiveqe.nets.checkpoint import save_net

    torch.manual_seed(2)
    net = UNet(num_feat=(4, 4), num_block=(1, 1), num_coarseness=2)
    torch.nn.init.normal_(net.tell.say.weight)  # a fresh network does not listen
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.mul_(1 if name.startswith("estimator.") else 3)
    path = tmp_path_factory.mktemp("unet") / "unet.safetensors"
    save_net(path, net)
    return path


@pytest.fixture(scope="session")
def unet_onnx(unet_path):
    from subjectiveqe.export import export_onnx

    export_onnx(unet_path, unet_path.with_suffix(".onnx"))
    return unet_path.with_suffix(".onnx")


# Tiles


@pytest.mark.parametrize("size", SIZES)
def test_tiling_cannot_be_seen(unet_onnx, draw_image, size):
    image = draw_image(size)
    whole, tiled = (Enhancer(unet_onnx, "onnxruntime", tile_px=t)(image) for t in (0, 32))
    assert whole.shape == image.shape
    assert whole.dtype == np.uint8
    assert np.array_equal(whole, image) == (size == (1, 1))  # a single pixel keeps its colour
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1  # rounding only


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("size", SIZES)
def test_every_runtime_gives_the_whole_picture_of_pytorch(unet_path, unet_onnx, draw_image, runtime, size):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    torch = pytest.importorskip("torch")
    from subjectiveqe.nets.checkpoint import load_net

    image = draw_image(size)
    net, _ = load_net(unet_path)
    model = unet_path if runtime == "torch" else unet_onnx
    enhancer = Enhancer(model, runtime, strength=0.25, tile_px=48, lock_colors=False)
    coarseness = enhancer.look(image).coarseness
    with torch.inference_mode():
        lq = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        if 1 < max(size) < 192:  # a single pixel is a drawing of few colours
            assert np.allclose(coarseness, net.estimate(lq)[0, 0], atol=1e-4)
        exact = net(lq, torch.tensor([0.25]), torch.from_numpy(coarseness)[None])[0].permute(1, 2, 0)
        exact = (exact.numpy() * 255).clip(0, 255)
    off = np.abs(enhancer(image) - exact)
    if runtime == "openvino":  # bfloat16 where the CPU has it, and this network exaggerates
        assert off.mean() < 1
    else:
        assert off.max() <= 0.501  # rounding to levels


def test_a_picture_is_estimated_by_its_certain_parts(unet_onnx, monkeypatch):
    enhancer = Enhancer(unet_onnx, "onnxruntime")
    image = np.random.default_rng(0).integers(0, 200, (800, 1000, 3), np.uint8)
    image[:192, :192] = 255

    def estimate(lq):
        """Of white patches 0.5 and 0.25, of all others anything, but with a scale 100 times as large."""
        assert lq.shape == (4 * 5, 3, 192, 192)
        white = lq.mean((1, 2, 3)) == 1
        assert white.sum() == 1
        value = np.where(white[:, None], [0.5, 0.25], 1e3 * np.eye(2)[np.arange(20) % 2] - 500)
        return np.stack((value, np.where(white[:, None], -9.2, 0.0) * [1, 1]), axis=1).astype(np.float32)

    monkeypatch.setitem(enhancer._networks, os.getpid(), dataclasses.replace(enhancer._network, estimate=estimate))
    assert enhancer.look(image).coarseness == pytest.approx([0.5, 0.25], abs=0.1)
    assert Enhancer(unet_onnx, "onnxruntime").look(image).coarseness.dtype == np.float32


def test_what_is_assumed_is_told_whatever_a_picture_looks_like(unet_onnx, draw_image):
    image = draw_image((64, 80))
    flat = np.zeros_like(image)  # which otherwise is told nothing
    for text, told in (("jpeg:30", coarseness("jpeg", 30, 2)), ("hevc:0", coarseness("hevc", 0, 2))):
        enhancer = pickle.loads(pickle.dumps(Enhancer(unet_onnx, "onnxruntime", assume=text)))
        for picture in (image, flat):
            assert enhancer.look(picture).coarseness == pytest.approx(told)
        expected = enhancer.with_look(image, Look(np.array(told, np.float32)))
        np.testing.assert_array_equal(enhancer(image), expected)
        assert enhancer.identity["assumed"] == text
    assert "assumed" not in Enhancer(unet_onnx, "onnxruntime").identity


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_network_that_hides_how_many_families_it_is_told_gets_one_line(unet_onnx, tmp_path, draw_image, runtime):
    pytest.importorskip(runtime)
    onnx = pytest.importorskip("onnx")
    model = onnx.load(unet_onnx)
    [told] = [value for value in model.graph.input if value.name == "coarseness"]
    told.type.tensor_type.shape.dim[1].dim_param = "families"
    onnx.save(model, tmp_path / "free.onnx")
    with pytest.raises(ConfigError, match="was not trained to be told jpeg:30"):
        Enhancer(tmp_path / "free.onnx", runtime, assume="jpeg:30")
    with pytest.raises(ModelError, match=r"free\.onnx: "):
        Enhancer(tmp_path / "free.onnx", runtime)(draw_image((64, 64)))


def test_nothing_is_assumed_that_a_network_was_not_trained_for(unet_onnx, tiny_model):
    for model, text in ((unet_onnx, "webp:20"), (tiny_model, "jpeg:30")):
        with pytest.raises(ConfigError, match=f"{model.name}: was not trained to be told {text}"):
            Enhancer(model, "onnxruntime", assume=text)
    with pytest.raises(ConfigError, match=r"assume 30 is no text"):
        Enhancer(unet_onnx, "onnxruntime", assume=30)
    with pytest.raises(ConfigError, match=r'"jpg:30" is nothing that can be assumed; known are .*jpeg:1 to 100'):
        Enhancer(unet_onnx, "onnxruntime", assume="jpg:30")


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (7, 0), (1, 7)])
def test_blocks_are_found_wherever_they_begin(top, left):
    coded = get_codec("jpeg").code(read_rgb(samples()[0]), 30).rgb
    enhancer = Enhancer("fast", "onnxruntime")
    cut = coded[top:, left:]
    look = enhancer.look(cut)
    assert look.grid == (-top % 8, -left % 8)
    assert look.coarseness == pytest.approx(enhancer.look(coded).coarseness, abs=0.03)
    whole, part = enhancer.with_look(coded, look._replace(grid=(0, 0)))[top:, left:], enhancer.with_look(cut, look)
    assert part.shape == cut.shape
    inner = (slice(160, -160), slice(160, -160))  # away from what is seen of the borders
    assert np.abs(part[inner].astype(int) - whole[inner]).max() <= 1


@pytest.mark.parametrize("grid", [(0, 0), (3, 0), (7, 1)])
def test_only_whole_blocks_are_estimated(grid):
    rows, cols = np.mgrid[:48, :40]
    starts = ((rows - grid[0]) % 8 == 0) & ((cols - grid[1]) % 8 == 0)
    part = whole_blocks(starts[None, None].astype(np.float32), grid)[0, 0]
    assert part.shape == tuple((side - first) // 8 * 8 for first, side in zip(grid, (48, 40), strict=True))
    assert part[::8, ::8].all()
    assert part.sum() == part.size / 64


@pytest.mark.parametrize(
    ("side", "places"),
    [(1, [0]), (191, [0]), (400, [0, 208]), (1000, [0, 192, 400, 592, 800]), (1200, [0, 240, 496, 752, 1008])],
)
def test_patches_are_spread_from_end_to_end(side, places):
    assert look_places(side) == places


@pytest.mark.parametrize(("codec", "level"), [("jpeg", 10), ("jpeg", 75), ("jpeg", 95), ("avif", 70)])
def test_blocks_of_every_quality_are_found(codec, level):
    coded = get_codec(codec).code(read_rgb(samples()[0]), level).rgb
    assert Enhancer("fast", "onnxruntime").look(coded[3:, 5:]).grid == (5, 3)


@pytest.mark.parametrize("quality", [30, 75])
def test_blocks_are_found_in_pictures_of_text(quality):
    """Where the steps between letters and ground are larger than those between blocks."""
    page = Image.new("RGB", (320, 240), (40, 44, 52))
    for line in range(12):
        ImageDraw.Draw(page).text((7, 4 + 19 * line), "The quick brown fox jumps over the lazy dog " * 2, "silver")
    coded = get_codec("jpeg").code(np.asarray(page), quality).rgb
    assert Enhancer("fast", "onnxruntime").look(coded[2:, 7:]).grid == (6, 1)


def test_blocks_are_found_in_a_small_picture():
    coded = get_codec("jpeg").code(read_rgb(samples()[1]), 30).rgb
    assert Enhancer("fast", "onnxruntime").look(coded[99:149, 101:161]).grid == (5, 3)


@pytest.mark.parametrize("side", [1, 7, 8, 14, 15, 16])
def test_pictures_of_hardly_a_block_are_enhanced(draw_image, side):
    for shape in ((side, 500), (500, side)):
        image = draw_image(shape)
        assert Enhancer("fast", "onnxruntime")(image).shape == image.shape


def test_no_blocks_are_found_where_there_are_none(draw_image):
    for image in (read_rgb(samples()[0])[3:, 5:], draw_image((20, 300)), np.full((300, 300, 3), 128, np.uint8)):
        assert Enhancer("fast", "onnxruntime").look(image).grid == (0, 0)
    soft = get_codec("webp").code(read_rgb(samples()[0]), 50).rgb
    assert Enhancer("fast", "onnxruntime").look(soft[3:, 5:]).grid == (0, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_drawings_of_few_colours_are_left_alone(dtype):
    """Modules of a QR code, which the network takes for blocks of a JPEG."""
    rng = np.random.default_rng(3)
    level = np.iinfo(dtype).max // 255
    code = np.repeat(np.repeat(rng.integers(0, 2, (40, 60)) * 255, 8, 0), 8, 1).astype(dtype) * level
    drawing = np.repeat(code[..., None], 3, axis=2)
    enhancer = Enhancer("fast", "onnxruntime")
    look = enhancer.look(drawing)
    assert look.coarseness.tolist() == [0] * 5
    assert np.abs(enhancer(drawing).astype(int) - drawing).max() <= 2 * level
    for count, told in ((16, True), (17, False)):
        drawing[:16, :16] = (np.arange(256).reshape(16, 16) % (count - 2) * level + level)[..., None]
        assert (not enhancer.look(drawing).coarseness.any()) == told


def test_enlarged_pictures_are_not_taken_for_the_coarsest(sample_paths):
    """Smooth as they are, they look like WebP, whose own files are as coarse as they look."""
    enhancer = Enhancer("fast", "onnxruntime")
    photo = Image.open(sample_paths["chelsea"])
    small = get_codec("jpeg").code(np.asarray(photo.resize((300, 200), Image.BICUBIC)), 50).rgb
    enlarged = np.asarray(Image.fromarray(small).resize(photo.size, Image.BICUBIC))
    assert enhancer.look(enlarged).coarseness[2] == pytest.approx(0.6)
    for image in (enlarged, np.asarray(photo)):
        assert enhancer.look(get_codec("webp").code(image, 20).rgb).coarseness[2] > 0.7


def test_narrow_mosaics_are_looked_at():
    squares = np.random.default_rng(1).integers(0, 256, (20, 2, 3)).astype(np.uint8)
    strip = np.ascontiguousarray(np.kron(squares, np.ones((8, 8, 1), np.uint8))[3:, 2:14])
    for picture in (strip, np.ascontiguousarray(strip.transpose(1, 0, 2))):
        assert Enhancer("fast", "onnxruntime")(picture).shape == picture.shape


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("side", [8, 16])
def test_mosaics_are_no_blocks_of_a_jpeg(side, first):
    """Squares that fill blocks; of a smooth picture a coarse JPEG leaves such too, one step apart."""
    photo, enhancer = Image.fromarray(read_rgb(samples()[2])), Enhancer(runtime="onnxruntime")
    small = photo.reduce(side)
    mosaic = np.asarray(small.resize((small.width * side, small.height * side), Image.Resampling.NEAREST))
    lq = get_codec("jpeg").code(np.ascontiguousarray(mosaic), 60).rgb[first:, first:]
    assert not enhancer.look(lq).coarseness.any()
    assert psnr(enhancer(lq), mosaic[first:, first:]) > psnr(lq, mosaic[first:, first:]) - 0.1
    smooth = np.asarray(photo.filter(ImageFilter.GaussianBlur(side)))
    assert enhancer.look(get_codec("jpeg").code(smooth, 3).rgb[first:, first:]).coarseness.any()


def test_frames_of_few_colours_tell_nothing_among_others():
    black = Look(np.zeros(2, np.float32), is_gray=True)
    others = [Look(np.array((0.2, 0.4), np.float32)), Look(np.array((0.4, 0.2), np.float32), is_gray=True)]
    assert mean_look([black, *others]).coarseness == pytest.approx([0.3, 0.3])
    assert not mean_look([black, *others]).is_gray
    assert mean_look([black, black]).coarseness.tolist() == [0, 0]
    assert mean_look([black, black]).is_gray
    assert mean_look([Look(None)] * 2) == Look(None)
    assert mean_look([black, *others]).surface is None


def test_frames_of_animations_say_what_lies_on_their_surface():
    """Where one is taken for a fine JPEG over something else: beneath WebP and AVIF nothing is looked for."""
    plain, deep = ([0.0, 0.4, 0.0], [0.0, 0.2, 0.6])
    looks = [Look(np.array(plain, np.float32)), Look(np.array(deep, np.float32), surface=np.array(plain, np.float32))]
    mean = mean_look(looks)
    assert mean.coarseness == pytest.approx([0, 0.3, 0.3])
    assert mean.surface == pytest.approx(plain)
    assert with_file(mean, coarseness("webp", 90, 3)).coarseness == pytest.approx(plain)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_without_colour_gets_none(sample_paths, dtype):
    """Channels may differ by a level, as conversions leave them; a single pixel of colour is one, wherever it is."""
    enhancer = Enhancer("fast", "onnxruntime")
    level = np.iinfo(dtype).max // 255
    gray = (read_rgb(sample_paths["astronaut"])[:203, :150, :1] // 2 * 2).astype(dtype) * level + np.array(
        (0, level, 0), dtype
    )
    out = enhancer(gray).astype(int)
    assert np.ptp(out, axis=2).max() == 0
    coloured = enhancer.with_look(gray, enhancer.look(gray)._replace(is_gray=False))
    assert np.ptp(coloured.astype(int), axis=2).max() > level
    assert np.array_equal(out[..., 0], (coloured.astype(int).sum(2) + 1) // 3)
    for place in ((0, 0), (-1, -1)):
        tinted = gray.copy()
        tinted[place] += np.array((0, level, 0), dtype)
        assert not enhancer.look(tinted).is_gray


def test_sixteen_bits_go_through_the_network_as_they_are(unet_onnx, draw_image):
    eight = draw_image((70, 50))
    deep = eight.astype(np.uint16) * 257
    enhancer = Enhancer(unet_onnx, "onnxruntime", tile_px=32)
    out = enhancer(deep)
    assert out.dtype == np.uint16
    assert np.array_equal(np.rint(out / 257), enhancer(eight))
    assert len(np.unique(out)) > 256  # not eight bits in disguise


def test_strips_are_the_picture_and_hold_no_more_than_a_row_of_tiles(unet_onnx, draw_image):
    image = draw_image((700, 90))
    enhancer = Enhancer(unet_onnx, "onnxruntime", tile_px=32)
    taken = 0

    def read(count):
        nonlocal taken
        taken += count
        return image[taken - count : taken]

    strips = []
    for strip in enhancer.strips(read, *image.shape[:2], enhancer.look(image)):
        strips.append(strip)
        assert taken <= min(
            700, sum(map(len, strips)) + 2 * 32 + 8 + 384
        )  # a row of tiles, and what waits for its colours
    assert len(strips) > 3
    assert np.array_equal(np.concatenate(strips), enhancer(image))


def test_every_tile_is_told(unet_onnx, draw_image):
    image, told, taken = draw_image((300, 200)), [], 0
    enhancer = Enhancer(unet_onnx, "onnxruntime", tile_px=32)

    def read(count):
        nonlocal taken
        taken += count
        return image[taken - count : taken]

    list(enhancer.strips(read, 300, 200, enhancer.look(image), lambda *state: told.append(state)))
    assert len(told) > 4
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]


@pytest.mark.parametrize("message", ["Failed to allocate memory for requested buffer", None])
def test_a_tile_that_does_not_fit_into_memory_is_cut_again(unet_onnx, monkeypatch, draw_image, message):
    image = draw_image((300, 420))
    enhancer = Enhancer(unet_onnx, "onnxruntime", tile_px=0)
    whole, sizes = enhancer(image), []
    network = enhancer._network

    def short_of_memory(lq, *rest):
        sizes.append(lq.shape[2] * lq.shape[3])
        if sizes[-1] > 40_000:
            raise RuntimeError(message) if message else MemoryError
        return network.run(lq, *rest)

    monkeypatch.setitem(enhancer._networks, os.getpid(), dataclasses.replace(network, run=short_of_memory))
    assert np.abs(enhancer(image).astype(int) - whole).max() <= 1
    assert max(sizes) > 40_000 > min(sizes)
    monkeypatch.setitem(enhancer._networks, os.getpid(), dataclasses.replace(network, run=lambda *_: [][:1].index(0)))
    with pytest.raises(ModelError, match="failed on a tile of 420x300 px"):
        enhancer(image)


def test_memory_that_never_suffices_is_one_line(unet_onnx, monkeypatch, draw_image):
    def fail(*_):
        raise MemoryError

    enhancer = Enhancer(unet_onnx, "onnxruntime")
    monkeypatch.setitem(enhancer._networks, os.getpid(), dataclasses.replace(enhancer._network, run=fail))
    with pytest.raises(ModelError, match=r"unet\.onnx: failed on a tile of \d+x\d+ px \(MemoryError\)"):
        enhancer(draw_image((300, 420)))


def test_tiles_are_small_where_memory_is(unet_onnx, monkeypatch, draw_image):
    enhancer, areas = Enhancer(unet_onnx, "onnxruntime"), []
    run = enhancer._network.run

    def watch(lq, *rest):
        areas.append(lq.shape[2] * lq.shape[3])
        return run(lq, *rest)

    monkeypatch.setitem(enhancer._networks, os.getpid(), dataclasses.replace(enhancer._network, run=watch))
    bytes_px = enhancer._network.bytes_px + 36
    monkeypatch.setattr("subjectiveqe.enhancing.enhancer.memory_bytes", lambda: 4 * 80_000 * bytes_px)
    enhancer(draw_image((400, 500)))
    assert len(areas) > 1
    assert max(areas) <= 80_000
    areas.clear()
    monkeypatch.setattr("subjectiveqe.enhancing.enhancer.memory_bytes", lambda: 0)
    enhancer(draw_image((400, 500)))
    assert max(areas) >= 50_000, "tiles of little but overlap would take times as long and be seen"


def test_an_estimate_that_is_no_number_is_caught(unet_onnx, monkeypatch, draw_image):
    enhancer = Enhancer(unet_onnx, "onnxruntime")
    nothing = dataclasses.replace(enhancer._network, estimate=lambda lq: np.full((len(lq), 2, 2), np.nan, np.float32))
    monkeypatch.setitem(enhancer._networks, os.getpid(), nothing)
    with pytest.raises(ModelError, match="values that are not numbers"):
        enhancer(draw_image((40, 40)))


def test_neighbours_fade_into_each_other_where_the_overlap_does_not_fit(unet_onnx, draw_image, monkeypatch):
    from subjectiveqe.enhancing import enhancer as module

    image = draw_image((150, 170))
    whole = Enhancer(unet_onnx, "onnxruntime", tile_px=0)(image)
    network = runtimes.open_network(unet_onnx, "onnxruntime")
    monkeypatch.setattr(module, "_TILE_BYTES", (network.bytes_px + 36) * 64 * 64)
    tiled = Enhancer(unet_onnx, "onnxruntime")(image)
    assert 4 * network.reach_px > 64
    assert np.abs(whole.astype(int) - tiled.astype(int)).mean() < 0.5


@pytest.mark.parametrize(
    ("height", "width", "overlap_px", "stride_px", "tile_px", "max_area", "max_rows"),
    [
        (*size, *rest, max_rows)
        for size in [(1, 1), (8, 300), (301, 203), (3000, 4000), (50, 9000)]
        for rest in [(1, 1, 16, 0), (13, 8, 32, 0), (13, 8, 0, 0), (136, 8, None, 10**6), (345, 1, None, 250_000)]
        for max_rows in (None, 800)
    ],
)
def test_tiles_have_one_shape_and_keep_every_pixel(height, width, overlap_px, stride_px, tile_px, max_area, max_rows):
    tiles = plan_tiles(
        height,
        width,
        overlap_px=overlap_px,
        stride_px=stride_px,
        tile_px=tile_px,
        max_area=max_area,
        max_rows=max_rows,
    )
    assert len({(t.rows.stop - t.rows.start, t.cols.stop - t.cols.start) for t in tiles}) == 1
    for spans, side in (({t.rows for t in tiles}, height), ({t.cols for t in tiles}, width)):
        ordered = sorted(spans, key=lambda span: span.start)
        assert all(span.start % stride_px == 0 and span.start >= 0 for span in ordered)
        assert ordered[0].keep_start == 0
        assert side <= ordered[-1].keep_stop < side + stride_px
        for before, after in itertools.pairwise(ordered):
            assert before.keep_stop == after.keep_start + after.fade_px
            assert before.keep_stop <= before.stop
            if not after.fade_px:
                assert before.stop - before.keep_stop >= overlap_px
                assert after.keep_start - after.start >= overlap_px
    if max_area:
        assert (tiles[0].rows.stop - tiles[0].rows.start) * (tiles[0].cols.stop - tiles[0].cols.start) <= max_area
    if max_rows and overlap_px == 136:
        assert tiles[0].rows.stop - tiles[0].rows.start <= max_rows


def test_rows_of_tiles_are_not_lower_than_five_overlaps():
    tiles = plan_tiles(3000, 4000, overlap_px=136, stride_px=8, tile_px=None, max_area=10**6, max_rows=300)
    assert len({tile.rows for tile in tiles}) > 1
    assert 4 * 136 < tiles[0].rows.stop - tiles[0].rows.start <= 5 * 136


def test_a_plan_with_hardly_any_memory_still_covers_the_picture():
    tiles = plan_tiles(20, 30, overlap_px=9, stride_px=1, tile_px=None, max_area=1)
    kept = np.zeros((20, 30), bool)
    for tile in tiles:
        kept[tile.rows.keep_start : tile.rows.keep_stop, tile.cols.keep_start : tile.cols.keep_stop] = True
    assert kept.all()


# Arguments and models


def test_strength_is_a_dial(tiny_model, draw_image):
    image = draw_image((20, 20))
    outs = [Enhancer(tiny_model, "onnxruntime", strength=s)(image).astype(int) for s in (0, 0.5, 1)]
    changes = [np.abs(out - image).sum() for out in outs]
    assert changes[0] == 0 < changes[1] < changes[2]


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_strength_outside_its_range_is_refused(tiny_model, strength):
    with pytest.raises(ConfigError, match=r"expected 0 \(faithful\) to 1 \(pleasing\)"):
        Enhancer(tiny_model, strength=strength)


def test_a_negative_tile_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="tile_px -1"):
        Enhancer(tiny_model, tile_px=-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": ""}, "model '' is no model"),
        ({"model": False}, "model False is no model"),
        ({"tile_px": 100.5}, "tile_px 100.5 is no whole number"),
        ({"strength": np.array([0.5])}, r"strength array\(\[0.5\]\) is no number"),
        ({"strength": "0.5"}, "strength '0.5' is no number"),
    ],
)
def test_an_argument_of_another_kind_is_refused(tiny_model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        Enhancer(**{"model": tiny_model, **arguments})


def test_numbers_of_numpy_will_do(tiny_model):
    assert Enhancer(tiny_model, "onnxruntime", np.float32(0.5), np.int64(32)).strength == 0.5


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_only_pictures_are_enhanced(enhancer, image):
    with pytest.raises(ShapeError, match=r"expected a picture of uint8 or uint16 \(H, W, 3\)"):
        enhancer(image)


def test_the_input_is_left_alone_and_any_memory_order_will_do(enhancer, draw_image):
    image = draw_image((30, 20))
    before = image.copy()
    out = enhancer(image)
    assert np.array_equal(image, before)
    turned = enhancer(np.asfortranarray(image)[::-1])  # the stand-in blurs alike in all directions
    assert np.abs(turned.astype(int) - out[::-1]).max() <= 1  # rounding only


def test_either_order_of_bytes_will_do(enhancer, draw_image):
    deep = draw_image((20, 30)).astype(np.uint16) * 257
    out = enhancer(deep.astype(">u2"))
    assert out.dtype == np.uint16
    assert out.dtype.isnative
    assert np.array_equal(out, enhancer(deep))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_of_pillow_come_back_as_such(enhancer, draw_image, mode):
    image = Image.fromarray(draw_image((40, 50))).convert(mode)
    image.info["icc_profile"] = b"a profile"
    out = enhancer(image)
    assert (out.mode, out.size, out.info) == (mode, image.size, image.info)
    expected = enhancer(np.asarray(image.convert("RGB")))
    assert np.abs(np.asarray(out.convert("RGB")).astype(int) - expected).max() <= (1 if "L" in mode else 0)
    if "A" in mode:
        assert np.array_equal(out.getchannel("A"), image.getchannel("A"))
    palette = enhancer(image.convert("RGB").convert("P"))
    assert palette.mode == "RGB"


def test_colours_nobody_sees_do_not_bleed_into_pictures_of_pillow(tiny_model):
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:, 16:] = (200, 100, 50, 255)
    rgba[:, :16, :3] = (1, 2, 3)
    out = np.asarray(Enhancer(tiny_model, "onnxruntime", strength=1.0)(Image.fromarray(rgba)))
    assert np.abs(out[:, 16:, :3].astype(int) - (200, 100, 50)).max() <= 1
    assert np.array_equal(out[:, :16], rgba[:, :16])


def test_16_bits_of_gray_of_pillow_stay(tiny_model):
    ramp = np.linspace(0, 65535, 2000).astype(np.uint16).reshape(40, 50)
    image = Image.fromarray(ramp)
    out = Enhancer(tiny_model, "onnxruntime", strength=0)(image)
    assert (image.mode, out.mode) == ("I;16", "I;16")
    assert np.array_equal(np.asarray(out), ramp)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_of_pillow_whose_white_nobody_knows_are_refused(enhancer, mode):
    with pytest.raises(ShapeError, match=f"expected 8 or 16 bits a channel, got a picture of Pillow's mode {mode}"):
        enhancer(Image.new(mode, (8, 8)))


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "I;16"])
def test_pictures_of_pillow_without_pixels_are_refused(enhancer, mode, capfd):
    with pytest.raises(ShapeError, match="expected a picture of 1x1 px or more, got 0x5"):
        enhancer(Image.new(mode, (0, 5)))
    assert capfd.readouterr().err == ""


def test_gray_of_pillow_stays_gray(unet_onnx, draw_image):
    enhancer = Enhancer(unet_onnx, "onnxruntime")
    gray = Image.fromarray(draw_image((40, 50))).convert("L")
    gray.info["transparency"] = gray.getpixel((0, 0))
    out = enhancer(gray)
    assert (out.mode, out.info) == ("LA", {})
    assert np.array_equal(np.asarray(out)[..., 1] == 0, np.asarray(gray) == gray.getpixel((0, 0)))
    assert enhancer(gray.convert("LA").convert("La")).mode == "LA"
    deep = Image.fromarray(np.full((8, 8), 300, np.uint16))
    deep.info["transparency"] = 300
    assert enhancer(deep).info == {}


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_a_colour_that_stands_for_transparency_becomes_alpha(enhancer, tmp_path, mode):
    image = Image.new("RGB", (24, 16), (200, 100, 50))
    image.paste((0, 255, 0), (4, 4, 12, 12))
    image = image.convert(mode)
    image.info["transparency"] = image.getpixel((4, 4))
    out = enhancer(image)
    assert (out.mode, out.info) == ("RGBA", {})
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[4:12, 4:12] = 0
    assert np.array_equal(out.getchannel("A"), alpha)
    out.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as seen:
        assert np.array_equal(np.asarray(seen), np.asarray(out))


def test_a_profile_of_inks_does_not_stay_with_colours(enhancer):
    image = Image.new("CMYK", (8, 8))
    image.info |= {"icc_profile": b"of inks", "dpi": (300, 300)}
    out = enhancer(image)
    assert (out.mode, out.info) == ("RGB", {"dpi": (300, 300)})
    assert image.info["icc_profile"] == b"of inks"


def test_an_enhancer_can_be_sent_to_another_process(tiny_model, draw_image):
    enhancer = Enhancer(tiny_model, "onnxruntime", 0.5, 32)
    copy = pickle.loads(pickle.dumps(enhancer))
    assert np.array_equal(copy(draw_image((40, 50))), enhancer(draw_image((40, 50))))
    assert copy.strength == 0.5


def test_a_copy_is_of_the_same_class(tiny_model):
    assert type(pickle.loads(pickle.dumps(OwnEnhancer(tiny_model, "onnxruntime")))) is OwnEnhancer


class OwnEnhancer(Enhancer):
    """As someone may derive one."""


def test_threads_share_an_enhancer(unet_onnx, draw_image):
    enhancer = Enhancer(unet_onnx, "onnxruntime", tile_px=16)
    images = [draw_image((40, 50), seed=k) for k in range(6)]
    alone = [enhancer(image) for image in images]
    together = [None] * len(images)
    threads = [
        threading.Thread(target=lambda k=k: together.__setitem__(k, enhancer(images[k]))) for k in range(len(images))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_signal_is_heard_after_a_network_has_gone_in_another_thread(tiny_model):
    if importlib.util.find_spec("openvino") is None or not hasattr(signal, "SIGUSR1"):
        pytest.skip("openvino or such a signal is not here")
    code = f"""if True:
        import faulthandler, gc, mmap, os, signal, threading
        from subjectiveqe.enhancing.enhancer import Enhancer
        faulthandler.enable()  # gives signals a stack of their own
        box = [Enhancer({str(tiny_model)!r}, "openvino")]
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        gc.collect()
        held = [mmap.mmap(-1, 65536, prot=mmap.PROT_READ) for _ in range(200)]  # where its memory was
        signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
        os.kill(os.getpid(), signal.SIGUSR1)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "heard\n")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_threads_that_begin_at_once_do_not_wait_for_each_other(tiny_model, runtime):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    code = f"""if True:
        import sys, threading
        import numpy as np
        from subjectiveqe.enhancing.enhancer import Enhancer

        sys.setswitchinterval(1e-7)  # threads take turns all the time
        enhancer = Enhancer({str(tiny_model)!r}, {runtime!r})
        begin = threading.Barrier(8)

        def enhance():
            begin.wait()
            enhancer(np.zeros((16, 16, 3), np.uint8))

        threads = [threading.Thread(target=enhance) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    """
    for _ in range(4):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _printed_by(code):
    """What a process prints, and those that it forks; all of them end here."""
    arguments = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as ran:
        try:
            return ran.communicate(timeout=120)[0]
        except subprocess.TimeoutExpired:
            os.killpg(ran.pid, signal.SIGABRT)  # each says what its threads wait for
            time.sleep(5)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ran.pid, signal.SIGKILL)


def test_a_forked_process_does_not_wait_for_ever(tiny_model):
    """Neither with the parent's enhancer, which is compiling, nor with one of its own, which could not compile."""
    if importlib.util.find_spec("openvino") is None or not hasattr(os, "fork"):
        pytest.skip("openvino or fork is not here")
    code = f"""if True:
        import multiprocessing
        import numpy as np
        from subjectiveqe.enhancing.enhancer import Enhancer

        image = np.zeros((16, 16, 3), np.uint8)
        enhancer = Enhancer({str(tiny_model)!r}, "openvino")

        def with_the_parents(image):
            return enhancer(image).shape, enhancer.runtime

        def engines(_):
            return [Enhancer({str(tiny_model)!r}, runtime).runtime for runtime in ("auto", "openvino")]

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(len(pool.map(enhancer, [image] * 2)), pool.map(with_the_parents, [image]), pool.map(engines, [0]))
        print(enhancer(image).shape, Enhancer({str(tiny_model)!r}, "openvino").runtime)
    """
    engines = "[((16, 16, 3), 'onnxruntime')] [['onnxruntime', 'onnxruntime']]"
    assert _printed_by(code) == f"2 {engines}\n(16, 16, 3) openvino\n"


@pytest.mark.parametrize(("runtime", "bound"), [("onnxruntime", 1), ("openvino", 2), ("torch", 1)])
def test_a_forked_process_goes_on_with_an_enhancer_that_has_worked(unet_path, runtime, bound):
    """By another engine, where the parent's was OpenVINO, which works in bfloat16 where the processor does."""
    if importlib.util.find_spec(runtime) is None or not hasattr(os, "fork"):
        pytest.skip(f"{runtime} or fork is not here")
    code = f"""if True:
        import multiprocessing
        import numpy as np
        from subjectiveqe.enhancing.enhancer import Enhancer

        image = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
        enhancer = Enhancer({str(unet_path) if runtime == "torch" else "fast"!r}, {runtime!r})
        expected = enhancer(image).astype(int)

        def farthest():
            print(abs(enhancer(image) - expected).max() <= {bound}, flush=True)

        forked = multiprocessing.get_context("fork").Process(target=farthest)
        forked.start()
        forked.join()
    """
    assert _printed_by(code) == "True\n"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_forked_process_may_drop_what_its_parent_made_and_end(tiny_model, runtime):
    if importlib.util.find_spec(runtime) is None or not hasattr(os, "fork"):
        pytest.skip(f"{runtime} or fork is not here")
    code = f"""if True:
        import multiprocessing, os
        import numpy as np
        from subjectiveqe.enhancing.enhancer import Enhancer

        image = np.zeros((300, 300, 3), np.uint8)

        def start(strength):
            global enhancer
            enhancer = Enhancer({str(tiny_model)!r}, {runtime!r}, strength)  # in place of the parent's

        def work(image):
            return enhancer(image).shape

        start(1.0)
        work(image)
        with multiprocessing.get_context("fork").Pool(1, start, (0.5,)) as pool:
            print(pool.map(work, [image]), flush=True)
        child = os.fork()
        if child:
            print(os.waitpid(child, 0)[1])
    """
    assert _printed_by(code) == "[(300, 300, 3)]\n0\n"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_work_that_outlives_the_main_thread_is_done(tiny_model, runtime, tmp_path):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    code = f"""if True:
        import threading
        from pathlib import Path
        import numpy as np
        from subjectiveqe.enhancing.enhancer import Enhancer
        from subjectiveqe.enhancing.files import enhance_files
        from subjectiveqe.images import write_png

        image, place = np.zeros((100, 300, 3), np.uint8), Path({str(tmp_path)!r})
        write_png(place / "a.png", image)

        def work():
            threading.main_thread().join()
            enhancer = Enhancer({str(tiny_model)!r}, {runtime!r}, tile_px=64)
            outcomes = enhance_files([place], place / "b", enhancer).outcomes
            print(enhancer(image).shape, [outcome.status for outcome in outcomes])

        threading.Thread(target=work).start()
    """
    assert _printed_by(code) == "(100, 300, 3) ['done']\n"
    assert (tmp_path / "b" / "a.png").is_file()


def test_a_picture_in_a_process_forked_from_one_that_read_pictures_is_refused(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("fork is not here")
    code = f"""if True:
        import multiprocessing
        from pathlib import Path
        import numpy as np
        from subjectiveqe.errors import ImageError
        from subjectiveqe.images import read_rgb, write_png

        path = Path({str(tmp_path / "a.png")!r})

        def work():
            for act in (lambda: write_png(path, image), lambda: read_rgb(path)):
                try:
                    act()
                except ImageError as error:
                    print(error, flush=True)

        def fork():
            forked = multiprocessing.get_context("fork").Process(target=work)
            forked.start()
            forked.join()

        image = np.zeros((30, 30, 3), np.uint8)
        fork()  # no picture was read yet
        write_png(path, image)
        fork()
    """
    lines = _printed_by(code).splitlines()
    assert len(lines) == 2
    assert all("in a process forked from one that has done so" in line for line in lines)


@pytest.mark.parametrize(("provider", "most"), [("CPUExecutionProvider", 2), ("DmlExecutionProvider", 1)])
def test_a_session_of_directml_runs_for_one_thread_at_a_time(tiny_model, monkeypatch, provider, most):
    import onnxruntime as ort

    running, seen, together = 0, 0, threading.Barrier(2)

    class Session(ort.InferenceSession):
        def get_providers(self):
            return [provider, "CPUExecutionProvider"]

        def run(self, *arguments):
            nonlocal running, seen
            running += 1
            seen = max(seen, running)
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(0.5)
            running -= 1
            return super().run(*arguments)

    monkeypatch.setattr(ort, "InferenceSession", Session)
    network = runtimes.open_network(tiny_model, "onnxruntime")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(network.run, [np.zeros((1, 3, 8, 8), np.float32)] * 2, [None] * 2))
    assert seen == most


@pytest.mark.parametrize(
    ("engine", "flags", "strength", "gpus", "expected"),
    [
        ("auto", "avx2", 1, [], "fast-int8"),
        ("auto", "avx2 amx_bf16 amx_tile", 1, [], "fast"),
        ("openvino", "amx_bf16", 1, ["CUDAExecutionProvider"], "fast"),
        ("onnxruntime", "amx_bf16", 1, [], "fast-int8"),
        ("auto", "avx2", 0.5, [], "fast"),
        ("auto", "avx2", 1, ["CUDAExecutionProvider"], "fast"),
    ],
)
def test_the_fastest_model_of_this_machine_is_taken(monkeypatch, engine, flags, strength, gpus, expected):
    pytest.importorskip("openvino")
    monkeypatch.setattr(runtimes, "cpu_info", lambda name: {"flags": flags}[name])
    monkeypatch.setattr(runtimes, "gpu_providers", lambda: gpus)
    assert runtimes.choose_model(engine, strength) == expected


def test_auto_does_not_take_what_was_never_tried(monkeypatch):
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CoreMLExecutionProvider", "CPUExecutionProvider"])
    assert runtimes.gpu_providers() == []
    monkeypatch.setattr(doctor.platform, "system", lambda: "Darwin")
    gpu = next(finding for finding in doctor.examine(measure=False) if finding.name == "GPU")
    assert (gpu.value, gpu.remedy) == ("none that ONNX Runtime can use", "")


def test_the_package_lists_what_it_gives_and_promises_nothing_else(tmp_path):
    import subjectiveqe

    assert "Enhancer" in dir(subjectiveqe)
    api = pytest.importorskip("mypy.api")
    code = "from subjectiveqe import Enhancer, Enhnacer\n"
    said, _, _ = api.run(["--config-file=", f"--cache-dir={tmp_path}", "-c", code])
    assert 'has no attribute "Enhnacer"' in said
    assert said.count("error:") == 1


def test_openvino_reads_and_compiles_one_at_a_time_and_leaves_the_locale(tiny_model, draw_image, monkeypatch):
    pytest.importorskip("openvino")
    core, busy, most = openvino_engine.openvino_core(), [], []

    class Core:
        get_property = core.get_property

    def watched(name):
        def call(*arguments):
            busy.append(name)
            most.append(len(busy))
            time.sleep(0.05)
            try:
                return getattr(core, name)(*arguments)
            finally:
                busy.remove(name)

        return staticmethod(call)

    Core.read_model, Core.compile_model = watched("read_model"), watched("compile_model")
    monkeypatch.setattr(openvino_engine, "openvino_core", lambda: Core)
    before = locale.setlocale(locale.LC_ALL)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Enhancer(tiny_model, "openvino")(draw_image((16, 16))), range(4)))
    assert len(most) >= 8
    assert max(most) == 1
    assert locale.setlocale(locale.LC_ALL) == before


def test_openvino_does_not_report_to_its_makers(tiny_model):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    code = f"""if True:
        import sys
        from subjectiveqe.enhancing.enhancer import Enhancer
        Enhancer({str(tiny_model)!r}, "openvino")
        print("openvino" in sys.modules, [name for name in sys.modules if name.startswith("openvino_telemetry.")])
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "True []\n")


def test_onnx_runtime_does_not_report_to_its_makers(tiny_model, tmp_path):
    """When it does, it writes a session's number and a database of what it has to tell."""
    code = f"""if True:
        import sys
        from subjectiveqe.enhancing.enhancer import Enhancer
        Enhancer({str(tiny_model)!r}, "onnxruntime")
        print("onnxruntime" in sys.modules)
    """
    places = {
        name: str(tmp_path) for name in ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "XDG_CACHE_HOME", "LOCALAPPDATA")
    }
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | places
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n")
    assert not list(tmp_path.iterdir())


def test_what_openvino_compiled_is_kept_within_bounds_and_may_be_damaged(tiny_model, draw_image, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    folder, picture = tmp_path / "cache" / "openvino", draw_image((40, 50))
    monkeypatch.setattr(openvino_engine, "cache_folder", lambda: tmp_path / "cache")
    expected = Enhancer(tiny_model, "openvino")(picture)
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    for content in (whole, whole[: len(whole) // 2], b"", b"\xff" * len(whole)):
        kept.chmod(0o600)
        kept.write_bytes(content)
        assert (Enhancer(tiny_model, "openvino")(picture) == expected).all()
    assert kept.read_bytes()[:5] == whole[:5]
    old = folder / "old.blob"
    old.write_bytes(b"?")
    os.utime(old, (0, 0))
    monkeypatch.setattr(openvino_engine, "COMPILED_BYTES", kept.stat().st_size)
    assert (Enhancer(tiny_model, "openvino")(picture) == expected).all()
    assert list(folder.iterdir()) == [kept]
    monkeypatch.setattr(openvino_engine, "cache_folder", lambda: kept / "no folder")
    assert (Enhancer(tiny_model, "openvino")(picture) == expected).all()


def test_a_model_that_is_missing_or_no_model_is_told_in_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx: no such model; give fast, fast-int8, best, or a "):
        Enhancer(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    for runtime in ("onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])):
        with pytest.raises(ModelError, match=r"text\.onnx: not a readable ONNX model") as caught:
            Enhancer(tmp_path / "text.onnx", runtime)
        assert "\n" not in str(caught.value)


def edited(tiny_model, path, change):
    import onnx

    model = onnx.load(tiny_model)
    change(model)
    onnx.save(model, path)
    return path


def test_a_network_is_run_where_it_was_trained(tiny_model, tmp_path, draw_image):
    image = draw_image((40, 50))

    def at(place):
        def note(model):
            model.metadata_props.add(key="trained_at", value=place)

        return edited(tiny_model, tmp_path / f"{place}.onnx", note)

    trained_at_0 = Enhancer(at("0"), "onnxruntime", strength=1.0)
    assert np.array_equal(trained_at_0(image), Enhancer(tiny_model, "onnxruntime", strength=0.0)(image))
    assert not np.array_equal(trained_at_0(image), Enhancer(tiny_model, "onnxruntime", strength=1.0)(image))
    with pytest.raises(ModelError, match=r"much\.onnx: the metadata say trained_at much, expected a number"):
        Enhancer(at("much"), "onnxruntime")


def test_a_model_of_another_kind_is_told_by_its_inputs(tiny_model, tmp_path):
    def rename(model):
        model.graph.input[1].name = model.graph.node[2].input[0] = "sigma"

    with pytest.raises(ModelError, match="expected inputs lq, strength and output out, found inputs lq, sigma"):
        Enhancer(edited(tiny_model, tmp_path / "other.onnx", rename), "onnxruntime")


def test_a_model_without_its_header_is_refused(tiny_model, tmp_path):
    path = edited(tiny_model, tmp_path / "bare.onnx", lambda model: model.ClearField("metadata_props"))
    with pytest.raises(ModelError, match="the metadata lack receptive_px and stride_px"):
        Enhancer(path, "onnxruntime")


def test_a_network_that_gives_no_numbers_is_caught(tiny_model, tmp_path, draw_image):
    from onnx import numpy_helper

    def spoil(model):
        weight = model.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32("nan"), weight.name))

    enhancer = Enhancer(edited(tiny_model, tmp_path / "nan.onnx", spoil), "onnxruntime")
    with pytest.raises(ModelError, match="values that are not numbers"):
        enhancer(draw_image((8, 8)))


def test_runtimes_that_cannot_be_used_say_what_to_do(tiny_model, monkeypatch):
    with pytest.raises(ConfigError, match='unknown runtime "tensorflow"; known: auto, onnxruntime, openvino, torch'):
        Enhancer(tiny_model, "tensorflow")
    with pytest.raises(ConfigError, match='unknown runtime "None"; known: auto'):
        Enhancer(tiny_model, None)
    with pytest.raises(ConfigError, match=r'runtime "torch" takes a \.safetensors or \.pt file'):
        Enhancer(tiny_model, "torch")
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'pip install "subjectiveqe\[openvino\]"'):
        Enhancer(tiny_model, "openvino")


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other\.pt"):
        Enhancer(tmp_path / "other.pt")
