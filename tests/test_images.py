"""Pictures from files and into files: what is kept, and how damage is told."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from subjectiveqe.errors import ImageError, ShapeError
from subjectiveqe.images import Picture, list_images, read_picture, read_rgb, write_png

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 65)])
def test_a_png_gives_back_the_pixels(tmp_path, draw_image, size):
    image = draw_image(size)
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)
    assert not Image.open(tmp_path / "a.png").getexif()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_keeps_its_profile_and_exif_and_stands_upright(tmp_path, draw_image):
    image = draw_image((24, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera lay on its side
    exif[0x010F] = "A Maker"
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif, icc_profile=PROFILE, dpi=(300, 300))
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.rgb, np.rot90(image, -1))
    write_png(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as written:
        assert written.info["icc_profile"] == PROFILE
        assert written.getexif()[0x010F] == "A Maker"
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert written.getexif().get(0x0112, 1) == 1  # else viewers would turn it a second time
        assert np.array_equal(np.asarray(written), picture.rgb)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_gray_stays_gray_and_alpha_stays_exact(tmp_path, draw_image, mode):
    rgba = np.dstack([draw_image((9, 5)), draw_image((9, 5), seed=1)[..., 0]])
    Image.fromarray(rgba).convert(mode).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.rgb.shape == (9, 5, 3)
    assert picture.is_gray == mode.startswith("L")
    assert not picture.warnings
    write_png(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "a.png") as before, Image.open(tmp_path / "b.png") as after:
        assert after.mode == mode
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_what_is_not_kept_is_said(tmp_path):
    deep = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    picture = read_picture(tmp_path / "deep.png")
    assert picture.warnings == ("16-bit channels become 8-bit",)
    assert np.array_equal(picture.rgb[..., 0], np.rint(deep / 257))

    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=95)
    ink = read_picture(tmp_path / "ink.jpg")
    assert ink.warnings == ("cmyk colours become sRGB",)
    red, green, blue = ink.rgb[4, 4].astype(int)
    assert red > 180 > 90 > max(green, blue)

    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "moving.gif").warnings == ("only the first page is kept",)


def test_alpha_is_laid_over_white_where_only_rgb_is_asked_for(tmp_path):
    Image.new("RGBA", (3, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize("read", [read_rgb, read_picture])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut.jpg", "cut.png"])
def test_damage_is_one_line_that_names_the_file(tmp_path, draw_image, kind, read):
    path = tmp_path / kind
    if kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.touch()
    elif kind.startswith("cut"):
        Image.fromarray(draw_image((64, 64))).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=kind) as caught:
        read(path)
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
        write_png(tmp_path / "file" / "a.png", Picture(np.zeros((4, 4, 3), np.uint8)))


def test_pictures_are_listed_by_name_without_hidden_and_other_files(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "inner/c.webp"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.png", "b.JPG"]
    assert [p.name for p in list_images(tmp_path, recursive=True)] == ["a.png", "b.JPG", "c.webp"]
