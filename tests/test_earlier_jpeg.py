"""The JPEG that a picture was before it was cut or saved again is found, with its quality and its blocks."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from subjectiveqe.codecs import crop_to_multiple, get_codec
from subjectiveqe.codecs.coarseness import coarseness
from subjectiveqe.enhancing import earlier_jpeg
from subjectiveqe.enhancing.earlier_jpeg import EarlierJpeg, Traces, find_earlier_jpeg, find_traces
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.enhancing.look import Look, with_file
from subjectiveqe.images import read_rgb
from subjectiveqe.metrics import lpips, psnr
from subjectiveqe.samples import samples


@pytest.fixture(scope="module")
def photos():
    return [crop_to_multiple(read_rgb(path), 8) for path in samples()]


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer("fast", "onnxruntime")


def find(rgb):
    return find_earlier_jpeg(np.ascontiguousarray(rgb).transpose(2, 0, 1)[None] / np.float32(255))


def saved_again(rgb, codec, level):
    return get_codec(codec).code(np.ascontiguousarray(rgb), level).rgb


@pytest.mark.parametrize("qf", [20, 25, 45, 65])
@pytest.mark.parametrize(("codec", "level"), [("jpeg", 95), ("jpeg", 92), ("avif", 80), ("hevc", 15)])
def test_a_jpeg_that_was_cut_is_found_beneath_what_saved_it_again(photos, qf, codec, level):
    for photo in photos:
        found = find(saved_again(saved_again(photo, "jpeg", qf)[3:-5, 6:-2], codec, level))
        assert found == EarlierJpeg(qf, (5, 2))


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (5, 0), (7, 7)])
def test_it_is_found_wherever_its_blocks_begin(photos, place):
    coded = saved_again(photos[0], "jpeg", 30)[-place[0] % 8 :, -place[1] % 8 :]
    assert find(coded) == EarlierJpeg(30, place)
    assert find(saved_again(coded, "webp", 85)) == EarlierJpeg(30, place)


@pytest.mark.parametrize("qf", [5, 10, 21, 30, 50, 75, 90])
def test_a_jpeg_that_was_nothing_else_is_no_other(photos, qf):
    """Its blocks have echoes half a block beside them, at finer qualities."""
    for photo in photos:
        assert find(saved_again(photo, "jpeg", qf)) == EarlierJpeg(qf, (0, 0))


def test_steps_are_those_of_libjpeg():
    for qf, steps in zip(earlier_jpeg._QFS, earlier_jpeg._STEPS, strict=True):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=int(qf))
        with Image.open(file) as picture:
            table = picture.quantization[0]
        assert [table[8 * row + col] for row, col in earlier_jpeg._FREQUENCIES] == steps.tolist()


def test_what_is_as_coarse_counts_before_what_it_hides(photos):
    assert find(saved_again(saved_again(photos[0], "jpeg", 60)[3:, 5:], "jpeg", 75)) == EarlierJpeg(75, (0, 0))


@pytest.mark.parametrize("tables", ["web_low", [[16] * 64] * 2, [[40] * 64] * 2])
def test_a_jpeg_of_other_tables_than_libjpegs_is_left_to_how_it_looks(photos, tables):
    """Low frequencies as coarse as those of a quality would have it taken for much coarser than it is."""
    for photo in photos:
        file = io.BytesIO()
        kind = {"quality": tables} if isinstance(tables, str) else {"qtables": tables}
        Image.fromarray(photo).save(file, "JPEG", **kind)
        with Image.open(file) as picture:
            found = find(saved_again(np.asarray(picture)[3:, 5:], "jpeg", 95))
        assert found is None or found.grid == (0, 0)


def boards(rows, cols, step):
    """Squares, as of a chessboard, whose edges look alike in many places."""
    squares = (rows // step + cols // step) % 2
    return (60 + squares * (37 + 3 * step)).astype(np.uint8)[..., None].repeat(3, 2)


def test_nothing_is_found_where_there_was_no_jpeg(photos, draw_image):
    page = Image.new("RGB", (384, 384), "white")
    for line in range(20):
        ImageDraw.Draw(page).text((7, 4 + 19 * line), "The quick brown fox jumps over the lazy dog " * 2, "black")
    pictures = [*photos, draw_image((300, 400)), np.asarray(page), np.full((64, 64, 3), 99, np.uint8)]
    pictures += [saved_again(photos[0], codec, level) for codec, level in (("hevc", 37), ("webp", 20), ("avif", 40))]
    pictures += [
        np.asarray(picture).repeat(8, 0).repeat(8, 1) for picture in (page.crop((0, 0, 48, 48)), photos[1][:48])
    ]
    rows, cols = np.indices((192, 192))
    pictures += [boards(rows, cols, step) for step in (16, 24, 36)]
    for picture in pictures:
        assert find(picture) is None


@pytest.mark.parametrize("shape", [(1, 1), (14, 200), (15, 15), (40, 16)])
def test_nothing_is_found_in_a_few_blocks(photos, shape):
    coded = saved_again(photos[0], "jpeg", 30)[3:, 5:]
    assert find(coded[: shape[0], : shape[1]]) is None


def test_it_counts_where_it_is_more_than_the_picture_looks():
    earlier = EarlierJpeg(30, (3, 5))
    known = coarseness("jpeg", 30)[1]
    assert earlier.told(5) == pytest.approx([0, known - 0.05, 0, 0, 0])
    for estimated, counts in (
        ([0, 0.5, 0, 0, 0], True),
        ([0, 0, 0.9, 0, 0], True),  # WebP, which hides it
        ([0.95, 0, 0, 0, 0], False),  # HEVC, which hides what saved it again
        ([0, known - 0.11, 0, 0, 0], True),
        ([0, known - 0.09, 0, 0, 0], False),  # the same JPEG
        ([0, known, 0, 0, 0], False),
        ([0.4], False),  # a network that knows no JPEG
    ):
        assert earlier.is_more_than(np.array(estimated, np.float32)) == counts


@pytest.mark.parametrize(("codec", "level"), [("jpeg", 92), ("webp", 85), ("avif", 80)])
def test_a_picture_is_enhanced_as_the_jpeg_that_it_was(photos, enhancer, codec, level, monkeypatch):
    gt = photos[0][3:-5, 5:-3]
    lq = saved_again(saved_again(photos[0], "jpeg", 30)[3:-5, 5:-3], codec, level)
    look = enhancer.look(lq)
    assert look.grid == (5, 3)
    assert look.coarseness == pytest.approx([0, coarseness("jpeg", 30)[1] - 0.05, 0, 0, 0])
    out = enhancer(lq)
    monkeypatch.setattr("subjectiveqe.enhancing.look.find_earlier_jpeg", lambda _: None)
    as_it_looks = enhancer(lq)
    assert lpips(out, gt) < 0.9 * lpips(as_it_looks, gt)
    assert psnr(out, gt) > psnr(as_it_looks, gt) - 0.1


def test_it_is_forgotten_where_the_file_is_believed():
    look = Look(EarlierJpeg(30, (3, 5)).told(5), (3, 5), earlier=EarlierJpeg(30, (3, 5)))
    assert with_file(look, coarseness("jpeg", 90)) is look
    assert with_file(look, coarseness("jpeg", 20)).earlier is None


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_it_counts_for_files_that_say_otherwise(photos, enhancer, tmp_path, suffix):
    coded = Image.fromarray(saved_again(photos[0], "jpeg", 30)[3:, 5:])
    coded.save(tmp_path / f"a.{suffix}", quality=85)
    [outcome] = enhance_files([tmp_path / f"a.{suffix}"], tmp_path / "out", enhancer).outcomes
    assert outcome.taken_for == "jpeg:30"


def test_its_blocks_count_for_who_says_what_it_was(photos):
    lq = saved_again(saved_again(photos[0], "jpeg", 30)[3:, 5:], "jpeg", 92)
    look = Enhancer("fast", "onnxruntime", assume="jpeg:20").look(lq)
    assert look.grid == (5, 3)
    assert look.coarseness == pytest.approx(coarseness("jpeg", 20))


def traces_of(rgb):
    return find_traces(np.ascontiguousarray(rgb).transpose(2, 0, 1)[None] / np.float32(255))


@pytest.mark.parametrize(("first", "then"), [(20, 75), (35, 75), (35, 90), (60, 90), (60, 95)])
def test_a_jpeg_in_the_blocks_of_a_coarser_one_has_traces_of_it(photos, first, then):
    seen, said = (max(coarseness("jpeg", qf)) for qf in (first, then))
    for photo in photos:
        once, twice = saved_again(photo, "jpeg", then), saved_again(saved_again(photo, "jpeg", first), "jpeg", then)
        assert traces_of(twice).gathered.max() > 2 * traces_of(once).gathered[: first - 5].max()
        assert not traces_of(twice).deny(seen, said)
        assert traces_of(twice).most(seen) == seen


def engraved(photo):
    """In lines that are as wide as the photo is dark."""
    dark = 1 - gaussian_filter(photo.mean(axis=2), 4) / 127.5
    waves = np.cos(2 * np.pi / 7 * (np.arange(len(photo))[:, None] - 15 * dark))
    ink = gaussian_filter(np.where(1.1 * waves > dark, 235.0, 20.0), 0.6)
    return np.repeat(ink.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("qf", [90, 95])
def test_lines_are_taken_for_what_their_files_say(photos, enhancer, tmp_path, qf, monkeypatch):
    """They look like coarse JPEGs; as bare pixels they are held to what one can have left."""
    gt = engraved(photos[0])
    Image.fromarray(gt).save(tmp_path / "a.jpg", quality=qf)
    [outcome] = enhance_files([tmp_path / "a.jpg"], tmp_path / "out.png", enhancer).outcomes
    assert outcome.taken_for == f"jpeg:{qf}"
    lq = read_rgb(tmp_path / "a.jpg")
    assert psnr(read_rgb(tmp_path / "out.png"), gt) > psnr(lq, gt) - 0.5
    held = psnr(enhancer(lq), gt)
    monkeypatch.setattr(Traces, "most", lambda _, seen: seen)
    assert enhancer.look(lq).coarseness[1] > 0.9
    assert held > psnr(enhancer(lq), gt) + 4


def test_traces_count_for_jpeg_files_that_look_like_nothing_else():
    denied = Traces(np.zeros(len(earlier_jpeg._QFS), np.float32), high=0.4)
    look = Look(np.array((0, 0.8, 0, 0, 0), np.float32), traces=denied)
    said = coarseness("jpeg", 90)
    assert with_file(look, said).coarseness == pytest.approx(said)
    assert with_file(look, coarseness("webp", 90)) is look
    for other in (
        look._replace(traces=None),
        look._replace(traces=denied._replace(high=0.02)),
        look._replace(surface=np.array(said, np.float32)),
        look._replace(earlier=EarlierJpeg(30, (3, 5))),
    ):
        assert with_file(other, said) is other
    webp = look._replace(coarseness=np.array((0, 0, 0.6, 0, 0), np.float32))
    assert with_file(webp, coarseness("jpeg", 90)).coarseness == pytest.approx(coarseness("jpeg", 90))
    assert with_file(webp, coarseness("jpeg", 98)) is webp  # beneath so fine a one nothing else is looked for
    for qf in (98, 100):
        assert with_file(look, coarseness("jpeg", qf)).coarseness == pytest.approx(coarseness("jpeg", qf))


@pytest.mark.parametrize("side", [8, 16, 24, 32, 192])
def test_nothing_gathers_in_noise(side):
    for seed in range(20):
        noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
        assert traces_of(noise).gathered.max() < 0.25
