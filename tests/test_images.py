"""Pictures from files and into files: what is kept, and how damage is told."""

from __future__ import annotations

import errno
import os
import re
import stat

import numpy as np
import pillow_heif
import pytest
import pyvips
from PIL import Image

from subjectiveqe.errors import ImageError, ShapeError
from subjectiveqe.files import write_text
from subjectiveqe.images import _with_smooth_chroma, list_images, read_rgb, write_png
from subjectiveqe.metrics import psnr


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 65)])
def test_a_png_gives_back_the_pixels(tmp_path, draw_image, size):
    image = draw_image(size)
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)
    assert not Image.open(tmp_path / "a.png").getexif()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_that_lies_on_its_side_is_read_upright(tmp_path, draw_image):
    image = draw_image((24, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.rot90(image, -1))


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    deep = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_rgb(tmp_path / "deep.png")[..., 0], np.rint(deep / 257))


def test_alpha_is_laid_over_white_where_only_rgb_is_asked_for(tmp_path):
    Image.new("RGBA", (3, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()
    for interpretation, bands in (("cmyk", 5), ("lab", 4), ("rgb16", 4), ("grey16", 2)):
        clear = pyvips.Image.black(3, 2, bands=bands).copy(interpretation=interpretation)
        clear.cast("ushort" if "16" in interpretation else "uchar").tiffsave(str(tmp_path / "clear.tif"))
        assert (read_rgb(tmp_path / "clear.tif") == 255).all(), interpretation


@pytest.mark.parametrize("name", ["a[shrink=2]", "a[1]", "a.png[page=0]"])
def test_brackets_at_the_end_of_a_name_are_no_options(tmp_path, draw_image, name):
    write_png(tmp_path / "a.png", draw_image((8, 8), 1))
    write_png(tmp_path / "a", draw_image((8, 8), 1))
    image = draw_image((8, 8))
    write_png(tmp_path / name, image)
    assert np.array_equal(read_rgb(tmp_path / name), image)


@pytest.mark.parametrize("kind", ["bmp", "ppm", "heic"])
def test_what_pillow_takes_for_a_bomb_is_told_with_its_limit(tmp_path, monkeypatch, draw_image, kind):
    pillow_heif.register_heif_opener()
    Image.fromarray(draw_image((100, 100))).save(tmp_path / f"a.{kind}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000)
    with pytest.raises(ImageError, match=rf"a\.{kind}: has more than the 0 megapixels that a {kind} may have here"):
        read_rgb(tmp_path / f"a.{kind}")


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut.jpg", "cut.png"])
def test_damage_is_one_line_that_names_the_file(tmp_path, draw_image, kind):
    path = tmp_path / kind
    if kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.touch()
    elif kind.startswith("cut"):
        Image.fromarray(draw_image((64, 64))).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=kind) as caught:
        read_rgb(path)
    assert "\n" not in str(caught.value)
    if kind == "cut.jpg":
        assert "premature end" in str(caught.value).lower()  # the cause, not which call met it


def test_no_array_but_a_picture_is_written(tmp_path):
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ShapeError, match="expected a picture of uint8"):
            write_png(tmp_path / "a.png", array)
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_made_the_error_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_png(tmp_path / "file" / "a.png", np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), r"\(Permission denied\)$"),
        (OSError(errno.ENOSPC, "No space left on device"), r"\(No space left on device\); is the disk full\?$"),
        (OSError("encoder error -2"), r"\(encoder error -2\); is the disk full\?$"),
    ],
)
def test_the_disk_is_blamed_where_it_may_be_full(tmp_path, monkeypatch, error, said):
    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ImageError, match=rf"a\.png: cannot be written {said}"):
        write_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))


@pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_has_the_rights_of_any_new_file_or_of_the_one_it_replaces(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        write_text(tmp_path / "new", "text")
    finally:
        os.umask(before)
    plain, new = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "new"))
    assert new == plain == 0o666 & ~umask
    (tmp_path / "new").chmod(0o640)
    write_text(tmp_path / "new", "another")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_name_may_be_as_long_as_the_system_takes_it(tmp_path):
    name = "\N{CAMERA}" * 60 + ".jpg"  # 244 bytes
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_animated_avif_is_told_from_damage(tmp_path, draw_image):
    frames = [Image.fromarray(draw_image((16, 16), seed)) for seed in range(2)]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"a\.avif: is an animated AVIF, which cannot be read; save it as GIF"):
        read_rgb(tmp_path / "a.avif")


def test_pictures_are_listed_by_name_without_hidden_and_other_files(tmp_path):
    folder = tmp_path / ".in"  # hidden itself, and asked for by name
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "inner/c.webp", ".thumbs/d.png", "inner/.trash/x/e.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "link").symlink_to(folder / "inner")
    assert [p.name for p in list_images(folder)] == ["a.png", "b.JPG"]
    assert [p.name for p in list_images(folder, recursive=True)] == ["a.png", "b.JPG", "c.webp"]


def test_chroma_of_420_is_interpolated(tmp_path, sample_paths):
    """Decoders for HEIC and AVIF that repeat each sample of chroma are farther from the original, by PSNR."""
    photo = read_rgb(sample_paths["coffee"])
    pillow_heif.register_heif_opener()
    Image.fromarray(photo).save(tmp_path / "a.heic", quality=90, chroma=420)
    Image.fromarray(photo).save(tmp_path / "a.avif", quality=90, subsampling="4:2:0")
    repeated_heic = np.asarray(Image.open(tmp_path / "a.heic").convert("RGB"))
    repeated_avif = pyvips.Image.new_from_file(str(tmp_path / "a.avif")).numpy()
    assert psnr(read_rgb(tmp_path / "a.heic"), photo) > psnr(repeated_heic, photo) + 0.2
    assert psnr(read_rgb(tmp_path / "a.avif"), photo) > psnr(repeated_avif, photo) + 0.2


def test_chroma_of_444_is_left_alone(tmp_path, sample_paths):
    photo = read_rgb(sample_paths["coffee"])
    pillow_heif.register_heif_opener()
    Image.fromarray(photo).save(tmp_path / "a.heic", quality=60, chroma=444)
    assert np.array_equal(read_rgb(tmp_path / "a.heic"), np.asarray(Image.open(tmp_path / "a.heic").convert("RGB")))


def test_interpolated_chroma_keeps_odd_sizes_alpha_and_ten_bits(draw_image):
    deep = np.dstack((draw_image((63, 65)), np.full((63, 65), 77, np.uint8))).astype(np.uint16) * 257
    doubled = deep[:62, :64, :3].reshape(31, 2, 32, 2, 3).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    deep[:62, :64, :3] = doubled
    image = pyvips.Image.new_from_array(deep).copy(interpretation="rgb16")
    smooth = _with_smooth_chroma(image)
    assert (smooth.width, smooth.height, smooth.format, smooth.interpretation) == (65, 63, "ushort", "rgb16")
    assert np.array_equal(smooth.numpy()[..., 3], deep[..., 3])
    weights = np.array([0.299, 0.587, 0.114])
    inner = slice(2, -2)
    before, after = (pixels[inner, inner, :3] @ weights for pixels in (deep, smooth.numpy()))
    unclipped = (smooth.numpy()[inner, inner, :3] < 65535).all(2) & (smooth.numpy()[inner, inner, :3] > 0).all(2)
    assert np.abs(before - after)[unclipped].max() < 2


def test_a_turned_avif_is_read_upright(tmp_path, sample_paths):
    photo = read_rgb(sample_paths["coffee"])[:192, :256]
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    Image.fromarray(photo).save(tmp_path / "a.avif", quality=95, exif=exif)
    read = read_rgb(tmp_path / "a.avif")
    assert psnr(read, np.ascontiguousarray(np.rot90(photo, -1))) > 35


def test_a_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(ImageError, match=f"{re.escape(str(tmp_path))}: is a folder"):
        read_rgb(tmp_path)
