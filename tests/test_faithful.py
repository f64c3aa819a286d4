"""Results that agree with the JPEG file they come from."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from subjectiveqe import metrics
from subjectiveqe.cli import app
from subjectiveqe.enhancing.faithful import Faithfulness, LumaIntervals
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.errors import ConfigError, ImageError
from subjectiveqe.formats.saving import Saving
from subjectiveqe.images import read_rgb, vips_profile
from subjectiveqe.samples import samples

jpeglib = pytest.importorskip("jpeglib")


def save_jpeg(path, picture, **options):
    Image.fromarray(picture).save(path, **options)
    return path


def luma_levels(path):
    return jpeglib.read_dct(str(path)).Y.astype(int)


def disturbed(path, strength=12):
    """What a network might make of a file: its pixels, and much that is not in them."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    return np.clip(pixels + np.random.default_rng(0).normal(0, strength, pixels.shape), 0, 255).astype(np.uint8)


def kept(path, out, strips=1):
    report = Faithfulness()
    rows = [*LumaIntervals(path, "png").keep(np.array_split(out.reshape(*out.shape[:2], -1), strips), report)]
    return np.concatenate(rows).reshape(out.shape), report


def test_a_judge_that_fails_costs_no_picture(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    source = save_jpeg(tmp_path / "photo.jpg", read_rgb(samples()[0])[:128, :128], quality=40)
    out, expected = disturbed(source), kept(source, disturbed(source))[0]
    monkeypatch.setattr(metrics, "lpips", fail)
    result, report = kept(source, out)
    assert np.array_equal(result, expected)
    assert report.lpips is None


def requantised(tmp_path, source, out):
    """The luma of a picture, coded by another encoder with the source's own tables."""
    with Image.open(source) as picture:
        tables = picture.quantization
    return luma_levels(save_jpeg(tmp_path / "again.jpg", out, qtables=tables, subsampling=0))


@pytest.mark.parametrize("qf", [5, 10, 40, 75])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [(256, 320), (101, 203)])
def test_coding_the_result_again_gives_the_luma_of_the_file(tmp_path, qf, subsampling, size):
    photo = read_rgb(samples()[0])[: size[0], : size[1]]
    source = save_jpeg(tmp_path / "photo.jpg", photo, quality=qf, subsampling=subsampling)
    out = disturbed(source, strength=12 if qf >= 40 else 50)
    before = requantised(tmp_path, source, out)
    result, report = kept(source, out, strips=5)
    wanted, after = luma_levels(source), requantised(tmp_path, source, result)
    assert (before != wanted).mean() > 0.01
    assert report.coefficients == wanted.size
    assert report.moved == pytest.approx((before != wanted).sum(), rel=0.02)
    assert (after == wanted).mean() >= 0.999
    assert abs(after - wanted).max() <= 1
    assert report.missed / report.coefficients < 0.001
    assert report.lpips == pytest.approx(metrics.lpips(out, result), abs=1e-6)


def test_no_more_is_changed_than_has_to_be(tmp_path):
    photo = read_rgb(samples()[1])[:256, :256]
    source = save_jpeg(tmp_path / "photo.jpg", photo, quality=30)
    again, report = kept(source, photo)  # the original is within all intervals, but for rounding
    assert report.moved < 0.001 * report.coefficients
    assert (again != photo).mean() < 0.02
    out = disturbed(source)
    chroma = [
        np.asarray(Image.fromarray(image).convert("YCbCr"), int)[..., 1:] for image in (out, kept(source, out)[0])
    ]
    assert np.abs(chroma[0] - chroma[1]).mean() < 1


def test_what_it_took_is_one_line():
    line = "25 of 1000 luma coefficients (2.50 %) were moved back, 99.900 % agree with the file"
    assert str(Faithfulness(1000, 25, 1)) == line
    assert str(Faithfulness(1000, 25, 1, 0.01234)) == f"{line}, LPIPS to the result without is 0.0123"


def test_what_there_is_no_room_for_is_counted(tmp_path):
    rng = np.random.default_rng(0)
    source = save_jpeg(tmp_path / "loud.jpg", rng.choice([0, 255], (64, 64, 3)).astype(np.uint8), quality=97)
    out = disturbed(source, strength=60)
    result, report = kept(source, out, strips=3)
    wrong = (requantised(tmp_path, source, result) != luma_levels(source)).sum()
    assert report.missed > 20
    assert report.missed == pytest.approx(wrong, rel=0.2)


@pytest.mark.parametrize(("side", "is_judged"), [(30, False), (31, True)])
def test_small_pictures_are_judged_where_that_can_be(tmp_path, side, is_judged):
    source = save_jpeg(tmp_path / "photo.jpg", read_rgb(samples()[0])[:side, :64], quality=10)
    assert (kept(source, disturbed(source))[1].lpips is not None) == is_judged


def test_large_pictures_are_judged_by_their_middle(tmp_path):
    photo = np.tile(read_rgb(samples()[0])[:208, :304], (3, 2, 1))
    source = save_jpeg(tmp_path / "photo.jpg", photo, quality=20)
    out = photo.copy()
    out[56:568, 48:560] = disturbed(source, strength=40)[56:568, 48:560]  # of 624x608
    result, report = kept(source, out, strips=7)
    middle = (slice(56, 568), slice(48, 560))
    assert report.lpips == pytest.approx(metrics.lpips(out[middle], result[middle]), abs=1e-6)
    assert report.lpips > 0.001


def test_gray_and_progressive_files_have_luma_too(tmp_path):
    photo = read_rgb(samples()[2])[:120, :200]
    gray = save_jpeg(tmp_path / "gray.jpg", photo[..., 1], quality=20)
    result, _ = kept(gray, disturbed(gray))
    assert (requantised(tmp_path, gray, result) == luma_levels(gray)).mean() >= 0.999
    progressive = save_jpeg(tmp_path / "progressive.jpg", photo, quality=20, progressive=True)
    result, _ = kept(progressive, disturbed(progressive))
    assert (requantised(tmp_path, progressive, result) == luma_levels(progressive)).mean() >= 0.999


def test_files_without_such_luma_are_refused_in_one_line(tmp_path):
    photo = read_rgb(samples()[0])[:64, :80]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with pytest.raises(ImageError, match=r"photo\.png: is no JPEG"):
        LumaIntervals(tmp_path / "photo.png", "png")
    Image.fromarray(photo).convert("CMYK").save(tmp_path / "print.jpg")
    with pytest.raises(ImageError, match=r"print\.jpg: has no luma"):
        LumaIntervals(tmp_path / "print.jpg", "jpeg")
    for orientation in (2, 3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = save_jpeg(tmp_path / "turned.jpg", photo, exif=exif)
        with pytest.raises(ImageError, match="lies turned in its file"):
            LumaIntervals(turned, "png")
        LumaIntervals(turned, "jpeg")
    (tmp_path / "broken.jpg").write_bytes(turned.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"broken\.jpg: "):
        LumaIntervals(tmp_path / "broken.jpg", "jpeg")


def test_a_profile_that_the_format_does_not_take_is_refused(tmp_path):
    photo = read_rgb(samples()[0])[:64, :80]
    source = save_jpeg(tmp_path / "wide.jpg", photo, icc_profile=vips_profile("p3"))
    with pytest.raises(ImageError, match=r"wide\.jpg: bmp .*profile and .* other colours; take --format png") as caught:
        LumaIntervals(source, "bmp")
    assert "\n" not in str(caught.value)
    LumaIntervals(source, "png")


def test_luma_that_is_coarser_than_colours_is_refused(tmp_path):
    made = jpeglib.from_spatial(read_rgb(samples()[0])[:64, :80])
    made.samp_factor = ((1, 1), (2, 2), (2, 2))
    made.write_spatial(str(tmp_path / "odd.jpg"))
    assert read_rgb(tmp_path / "odd.jpg").shape == (64, 80, 3)
    with pytest.raises(ImageError, match=r"odd\.jpg: holds luma at a lower resolution than colours; leave --faithful"):
        LumaIntervals(tmp_path / "odd.jpg", "png")


def test_without_the_library_the_command_says_what_to_install(tmp_path, enhancer, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'run: pip install "subjectiveqe\[faithful\]"$'):
        enhance_files([tmp_path], tmp_path / "out", enhancer, faithful=True)


def test_the_command_keeps_to_the_file_and_says_what_it_took(tmp_path):
    source = save_jpeg(tmp_path / "photo.jpg", read_rgb(samples()[0])[:128, :160], quality=10)
    save_jpeg(tmp_path / "drawing.png", read_rgb(samples()[0])[:64, :64])
    told = CliRunner().invoke(app, ["enhance", str(source), "-o", str(tmp_path / "better.png"), "--faithful"])
    assert told.exit_code == 0, told.output
    assert re.search(r"\d+ of 20480 luma coefficients \(\d+\.\d\d %\) were moved back", told.output)
    assert (requantised(tmp_path, source, read_rgb(tmp_path / "better.png")) == luma_levels(source)).mean() >= 0.999
    streamed = CliRunner().invoke(app, ["enhance", str(source), "-o", "-", "--format", "png", "--faithful"])
    assert streamed.exit_code == 0
    assert streamed.stdout_bytes == (tmp_path / "better.png").read_bytes()
    assert streamed.stderr.startswith("standard output: ")
    assert "coefficients" in streamed.stderr
    options = ["-o", str(tmp_path / "out"), "--faithful", "--json"]
    told = CliRunner().invoke(app, ["enhance", str(source), str(tmp_path / "drawing.png"), *options])
    lines = {line["source"]: line for line in map(json.loads, told.stdout.splitlines())}
    assert told.exit_code == 1
    assert "is no JPEG" in lines[str(tmp_path / "drawing.png")]["reason"]
    assert lines[str(source)]["faithfulness"]["coefficients"] == 128 * 160
    warning = "saved with loss, as jpeg: fewer coefficients agree with the file than before; png keeps them"
    assert lines[str(source)]["warnings"] == [warning]
    assert warning not in streamed.stderr


def test_a_batch_writes_pictures_as_faithful_as_the_stream(tmp_path, enhancer):
    source = save_jpeg(tmp_path / "photo.jpg", read_rgb(samples()[2])[:90, :100], quality=15)
    result = enhance_files([source], tmp_path / "out.png", enhancer, saving=Saving("png"), faithful=True)
    (outcome,) = result.of("done")
    assert outcome.faithfulness is not None
    assert (requantised(tmp_path, source, read_rgb(tmp_path / "out.png")) == luma_levels(source)).mean() >= 0.999
