"""A photo stays a photo: profile, tags, alpha, depth, gray, orientation, in and out of every format."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import pyvips
import tifftools
from PIL import Image, ImageCms, ImageOps, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.errors import ConfigError, ImageError
from subjectiveqe.formats import saving
from subjectiveqe.formats.exif import can_go_into_tiff
from subjectiveqe.formats.jpegsegments import application, read_comments
from subjectiveqe.formats.photos import FORMATS, open_photo
from subjectiveqe.formats.pngchunks import png_chunk
from subjectiveqe.formats.saving import Saving, write_photo
from subjectiveqe.images import read_rgb, sniff_format, vips_profile

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAKER, ORIENTATION, COPYRIGHT = 0x010F, 0x0112, 0x8298
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>tags</a></x:xmpmeta>"


def copy(source, target, saving=None):
    """Reads and writes a photo without changing a pixel."""
    format_out = next(name for name, suffixes in FORMATS.items() if target.suffix in suffixes)
    photo = open_photo(source, format_out)

    def rows():
        for top in range(0, photo.height, 50):
            yield photo.read(min(50, photo.height - top))[..., : photo.bands]

    write_photo(target, photo, rows(), saving or Saving(), format_out)
    return photo


def exif(orientation=1):
    tags = Image.Exif()
    tags[MAKER], tags[COPYRIGHT], tags[ORIENTATION] = "A Maker", "A Photographer", orientation
    return tags


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("bmp", "gif")])
def test_profile_tags_and_resolution_come_along(tmp_path, draw_image, name):
    source = tmp_path / "in.jpg"
    Image.fromarray(draw_image((64, 96))).save(
        source, quality=95, icc_profile=PROFILE, exif=exif(), xmp=XMP, dpi=(300, 300)
    )
    target = tmp_path / f"out{FORMATS[name][0]}"
    assert copy(source, target).warnings == ()
    assert sniff_format(target) == name
    kept = open_photo(target, name)
    assert kept.attached["icc-profile-data"] == PROFILE
    assert b"A Photographer" in kept.attached["exif-data"]
    assert b"<a>tags</a>" in kept.attached["xmp-data"]
    if name in ("jpeg", "png", "tiff"):
        assert kept.density[0] * 25.4 == pytest.approx(300, abs=0.1)
    stripped = tmp_path / f"bare{FORMATS[name][0]}"
    copy(source, stripped, Saving(strip=True))
    bare = open_photo(stripped, name)
    assert bare.attached["icc-profile-data"] == PROFILE
    assert b"A Photographer" not in stripped.read_bytes()
    assert "xmp-data" not in bare.attached


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["jpeg", "png", "tiff", "webp", "avif", "heic"])
def test_a_picture_is_seen_upright_whatever_it_becomes(tmp_path, orientation, name):
    marked = np.zeros((32, 48, 3), np.uint8)
    marked[:16, :24] = (250, 30, 30)  # red at the top left, green at the bottom right
    marked[16:, 24:] = (30, 250, 30)
    Image.fromarray(marked).save(tmp_path / "in.jpg", quality=98, subsampling=0, exif=exif(orientation))
    target = tmp_path / f"out{FORMATS[name][0]}"
    copy(tmp_path / "in.jpg", target)
    copy(tmp_path / "in.jpg", tmp_path / f"bare{FORMATS[name][0]}", Saving(strip=True))
    upright = read_rgb(tmp_path / "in.jpg").astype(int)
    for path in (target, tmp_path / f"bare{FORMATS[name][0]}"):
        seen = read_rgb(path).astype(int)
        assert seen.shape == upright.shape
        assert np.abs(seen - upright).mean() < 8


def test_the_thumbnail_of_the_old_pixels_is_dropped(tmp_path, draw_image):
    small, big = tmp_path / "small.jpg", tmp_path / "in.jpg"
    Image.fromarray(draw_image((24, 32), seed=9)).save(small, quality=40)
    picture = pyvips.Image.new_from_array(draw_image((64, 96)), interpretation="srgb")
    picture = picture.copy()
    picture.set_type(pyvips.GValue.blob_type, "jpeg-thumbnail-data", small.read_bytes())
    picture.jpegsave(str(big))
    assert small.read_bytes()[-200:] in big.read_bytes()
    copy(big, tmp_path / "out.jpg")
    assert small.read_bytes()[-200:] not in (tmp_path / "out.jpg").read_bytes()


@pytest.mark.parametrize("names", [("jpeg", "tiff"), ("tiff", "tiff"), ("tiff", "jpeg"), ("tiff", "png")])
def test_tables_of_exif_go_through_tiff(tmp_path, draw_image, names):
    tags = exif()
    tags[0x8769] = {0x829A: 0.02, 0x9003: "2019:02:03 04:05:06", 0x927C: b"a maker's note"}
    tags[0x8825] = {1: "N", 2: (50.0, 30.0, 0.0)}
    names_of_it = {0x010D: "a document", 0x4746: 4, 0x9C9B: "Title\0".encode("utf-16-le")}
    tags.update(names_of_it)
    source, target = (tmp_path / f"{place}{FORMATS[name][0]}" for place, name in zip("io", names, strict=True))
    Image.fromarray(draw_image((40, 50))).save(source, exif=tags.tobytes())
    assert copy(source, target).warnings == ()
    assert np.array_equal(read_rgb(target).shape, (40, 50, 3))
    with Image.open(target) as picture:
        kept = picture.getexif()
        assert (kept[MAKER], kept[COPYRIGHT]) == ("A Maker", "A Photographer")
        assert {tag: kept[tag] for tag in names_of_it} == names_of_it
        assert kept.get_ifd(0x8769)[0x9003] == "2019:02:03 04:05:06"
        assert kept.get_ifd(0x8769)[0x927C] == b"a maker's note"
        assert kept.get_ifd(0x8825)[2] == (50.0, 30.0, 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((source.name, target.name))


def test_damaged_exif_is_named_where_it_cannot_be_kept(tmp_path, draw_image):
    source, target = tmp_path / "in.jpg", tmp_path / "out.tif"
    Image.fromarray(draw_image((40, 50))).save(source, exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert copy(source, target).warnings == ("EXIF is damaged and not kept",)
    assert read_rgb(target).shape == (40, 50, 3)


@pytest.mark.parametrize("name", ["jpeg", "heic"])
def test_exif_that_lacks_a_value_does_not_go_into_tiff(tmp_path, draw_image, name):
    def block(place):
        return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, MAKER, 2, 8, place, 0) + b"A Maker\0"

    beyond_the_end = block(1000)
    assert can_go_into_tiff(block(26))
    assert not can_go_into_tiff(beyond_the_end)
    source = tmp_path / f"in{FORMATS[name][0]}"
    pillow_heif.register_heif_opener()
    Image.fromarray(draw_image((40, 50))).save(source, exif=beyond_the_end)
    assert copy(source, tmp_path / "out.tif").warnings == ("EXIF is damaged and not kept",)
    assert read_rgb(tmp_path / "out.tif").shape == (40, 50, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("name", ["png", "tiff", "webp"])
def test_gray_stays_gray_and_alpha_stays_exact(tmp_path, draw_image, mode, name):
    rgba = np.dstack([draw_image((90, 50)), draw_image((90, 50), seed=1)[..., 0]])
    Image.fromarray(rgba).convert(mode).save(tmp_path / "a.png")
    target = tmp_path / f"b{FORMATS[name][0]}"
    photo = copy(tmp_path / "a.png", target, Saving(lossless=name == "webp"))
    assert photo.is_gray == mode.startswith("L")
    with Image.open(tmp_path / "a.png") as before, Image.open(target) as after:
        wanted = mode.replace("L", "RGB") if name == "webp" else mode  # WebP has no gray
        assert after.mode == wanted
        assert np.array_equal(np.asarray(before.convert(wanted)), np.asarray(after))


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_sixteen_bits_stay(tmp_path, name, bands):
    deep = np.random.default_rng(0).integers(0, 65536, (70, 40, bands), np.uint16)
    meaning = "grey16" if bands == 1 else "rgb16"
    pyvips.Image.new_from_array(deep, interpretation=meaning).pngsave(str(tmp_path / "in.png"), keep="none")
    target = tmp_path / f"out{FORMATS[name][0]}"
    assert copy(tmp_path / "in.png", target).warnings == ()
    assert np.array_equal(pyvips.Image.new_from_file(str(target)).numpy().reshape(deep.shape), deep)
    assert (
        copy(tmp_path / "in.png", tmp_path / "out.jpg").warnings[0] == "16-bit channels become 8-bit, jpeg has no more"
    )


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "bmp", "png", "tiff"])
def test_16_bits_of_ink_become_the_colours_of_8(tmp_path, name):
    ink = np.full((16, 24, 4), (40, 200, 230, 10), np.uint8)
    seen = []
    for bits, pixels in ((8, ink), (16, ink.astype(np.uint16) * 257)):
        source, target = tmp_path / f"{bits}.tif", tmp_path / f"{bits}{FORMATS[name][0]}"
        pyvips.Image.new_from_array(pixels, interpretation="cmyk").tiffsave(str(source))
        assert "cmyk colours become sRGB" in copy(source, target).warnings
        seen.append(read_rgb(target)[8, 8].astype(int))
    assert np.abs(seen[0] - seen[1]).max() <= 2
    assert seen[0][0] > 120 > seen[0][2]


@pytest.mark.parametrize(
    ("pixels", "meaning"),
    [(np.full((8, 8), 0.5, np.float32), "b-w"), (np.full((8, 8), 2**30, np.uint32), "b-w")],
)
def test_samples_whose_white_nobody_knows_are_refused(tmp_path, pixels, meaning):
    pyvips.Image.new_from_array(pixels, interpretation=meaning).tiffsave(str(tmp_path / "in.tif"))
    with pytest.raises(ImageError, match=r"its samples are of type .*; save it with 8 or 16 bits a channel first"):
        open_photo(tmp_path / "in.tif", "tiff")


@pytest.mark.parametrize(("means", "is_alpha"), [(0, False), (1, True), (2, True)])
def test_a_channel_beside_colours_is_alpha_where_the_file_says_so(tmp_path, means, is_alpha):
    picture = Image.new("RGBA", (8, 8), (200, 90, 30, 128))
    picture.save(tmp_path / "plain.tif")
    file = tifftools.read_tiff(str(tmp_path / "plain.tif"))
    file["ifds"][0]["tags"][338]["data"] = [means]
    tifftools.write_tiff(file, str(tmp_path / "in.tif"))
    photo = copy(tmp_path / "in.tif", tmp_path / "out.png")
    assert photo.bands == (4 if is_alpha else 3)
    assert photo.warnings == (() if is_alpha else ("channels beside the colours (1) are not kept",))


def gray_profile(gamma):
    """An ICC profile of gray, for which Pillow has no maker."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ " + struct.pack(">I3i", 0, 63190, 65536, 54061)
    text = b"desc" + struct.pack(">II", 0, 5) + b"gray\0" + bytes(78)
    tags, place = [], 128 + 4 + 12 * 3
    for name, content in ((b"desc", text), (b"wtpt", white), (b"kTRC", curve)):
        tags.append(struct.pack(">4sII", name, place, len(content)))
        place += len(content)
    body = struct.pack(">I", 3) + b"".join(tags) + text + white + curve
    header = struct.pack(">I4xI4s4s4s12x4s", place, 0x02100000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + body


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", ["webp", "avif", "heic", "bmp", "gif"])
def test_gray_keeps_its_look_where_its_profile_cannot_go(tmp_path, name, depth):
    levels = np.full((16, 24), 120, np.uint8) if depth == 8 else np.full((16, 24), 120 * 257, np.uint16)
    image = pyvips.Image.new_from_array(levels, interpretation="b-w" if depth == 8 else "grey16").copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", gray_profile(1.8))
    image.tiffsave(str(tmp_path / "in.tif"))
    copy(tmp_path / "in.tif", tmp_path / f"out{FORMATS[name][0]}")
    seen = read_rgb(tmp_path / f"out{FORMATS[name][0]}")[8, 12].astype(int)
    assert np.abs(seen - 139).max() <= 3  # 120 at a gamma of 1.8
    assert "icc-profile-data" not in open_photo(tmp_path / f"out{FORMATS[name][0]}", "png").attached


@pytest.mark.parametrize(("source", "target"), [("png", "png"), ("webp", "png"), ("webp", "gif"), ("webp", "webp")])
def test_turned_animations_keep_their_frames(tmp_path, source, target):
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    for frame in frames:
        frame.paste("white", (0, 0, 12, 4))  # at the top left
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    path = tmp_path / f"in.{source}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, lossless=True, exif=tags)
    copy(path, tmp_path / f"out.{target}", Saving(lossless=target == "webp"))
    with Image.open(tmp_path / f"out.{target}") as animation:
        assert animation.n_frames == 3
        for number, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
            animation.seek(number)
            turned = ImageOps.exif_transpose(animation).convert("RGB")
            assert turned.size == (16, 24)
            assert turned.getpixel((14, 2)) == (255, 255, 255)  # now at the top right
            assert np.abs(np.subtract(turned.getpixel((4, 20)), colour)).max() < 8


def test_colours_of_a_png_by_code_points_are_those_of_heic(tmp_path):
    for name, points in (("p3", (12, 13, 0, 1)), ("pq", (9, 16, 0, 1))):
        plain = io.BytesIO()
        Image.new("RGB", (8, 8), (0, 200, 0)).save(plain, "PNG")
        body = b"cICP" + bytes(points)
        chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
        data = plain.getvalue()
        (tmp_path / f"{name}.png").write_bytes(data[:33] + chunk + data[33:])
    assert open_photo(tmp_path / "p3.png", "png").attached["icc-profile-data"] == vips_profile("p3")
    with pytest.raises(ImageError, match=r"its colours are HDR or BT\.2020"):
        open_photo(tmp_path / "pq.png", "png")


def with_chunks(path, *chunks, behind=False):
    """A PNG file with more chunks, before its pixels or behind them."""
    plain = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 200, 0)).save(plain, "PNG")
    data, more = plain.getvalue(), b"".join(png_chunk(*chunk) for chunk in chunks)
    place = len(data) - 12 if behind else 33
    path.write_bytes(data[:place] + more + data[place:])
    return path


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "heic", "tiff", "gif"])
def test_content_credentials_are_named(tmp_path, kind):
    """As C2PA 2.1 says where they lie, appendix A.3."""
    path = tmp_path / f"a.{kind}"
    if kind == "heic":
        pillow_heif.from_pillow(Image.new("RGB", (64, 64))).save(path)
    else:
        Image.new("RGB", (64, 64)).save(path)
    plain = path.read_bytes()
    told = struct.pack(">I4s", 38, b"jumb") + struct.pack(">I4s", 30, b"jumd") + bytes(17) + b"c2pa\0"
    box = struct.pack(">I4s", 24 + len(told), b"uuid") + bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + told
    if kind == "tiff":
        Image.new("RGB", (64, 64)).save(path, tiffinfo={0xCD41: told})
    else:
        more = {
            "jpeg": plain[:2] + application(11, b"JP\0\1\0\0\0\1" + told) + plain[2:],
            "png": plain[:33] + png_chunk(b"caBX", told) + plain[33:],
            "webp": plain + struct.pack("<4sI", b"C2PA", len(told)) + told,
            "gif": plain[:-1] + b"\x21\xff\x0bC2PA_GIF\1\0\0" + bytes([len(told)]) + told + b"\0" + plain[-1:],
        }
        path.write_bytes(more.get(kind, plain + box))
    assert open_photo(path, kind).warnings == ("content credentials (C2PA) are not kept",)
    odd = struct.pack(">I4s", 1, b"junk") + b"\xff" * 8 if kind in ("avif", "heic") else b""  # longer than any file
    path.write_bytes(plain + odd)
    assert open_photo(path, kind).warnings == ()


@pytest.mark.parametrize("squeezed", [False, True])
def test_what_a_png_says_behind_its_pixels_is_read_too(tmp_path, squeezed):
    """Where ExifTool puts it."""
    said = zlib.compress(XMP) if squeezed else XMP
    xmp = b"XML:com.adobe.xmp\0" + bytes([squeezed, 0]) + b"\0\0" + said
    block = exif(orientation=6).tobytes().removeprefix(b"Exif\0\0")
    path = with_chunks(tmp_path / "a.png", (b"iTXt", xmp), (b"eXIf", block), behind=True)
    assert copy(path, tmp_path / "b.jpg").warnings == ()
    with Image.open(tmp_path / "b.jpg") as seen:
        assert (seen.getexif()[MAKER], seen.info["xmp"]) == ("A Maker", XMP)
        assert seen.getexif()[ORIENTATION] == 6
    bomb = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**25))
    with_chunks(tmp_path / "bomb.png", (b"iTXt", bomb), behind=True)
    assert "xmp-data" not in open_photo(tmp_path / "bomb.png", "jpeg").attached
    with_chunks(path, (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0damaged"), (b"iTXt", b"XML:com.adobe.xmp"), behind=True)
    assert "xmp-data" not in open_photo(path, "jpeg").attached


@pytest.mark.parametrize("squeezed", [False, True])
def test_profiles_of_a_png_in_words_come_along(tmp_path, squeezed):
    """As ImageMagick has written them; how pixels lie is no matter there, since no viewer but few heeds it."""
    records = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", 10) + b"\x1c\x02\x05\0\5Title"

    def words(kind, content):
        digits = content.hex().encode()
        lines = b"\n".join(digits[place : place + 72] for place in range(0, len(digits), 72))
        text = b"\n%s\n%8d\n%s\n" % (kind, len(content), lines)
        name = b"Raw profile type " + kind + b"\0"
        return (b"zTXt", name + b"\0" + zlib.compress(text)) if squeezed else (b"tEXt", name + text)

    block = exif(orientation=6).tobytes()
    path = with_chunks(tmp_path / "a.png", words(b"exif", block), words(b"xmp", XMP), words(b"iptc", records))
    assert copy(path, tmp_path / "b.jpg").warnings == ()
    with Image.open(tmp_path / "b.jpg") as seen:
        assert (seen.getexif()[MAKER], seen.getexif()[ORIENTATION], seen.info["xmp"]) == ("A Maker", 1, XMP)
        assert IptcImagePlugin.getiptcinfo(seen) == {(2, 5): b"Title"}
    other = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    path = with_chunks(path, words(b"APP1", other), (b"zTXt", b"Raw profile type exif\0\0damaged"))
    assert open_photo(path, "jpeg").attached == {"xmp-data": XMP}


def test_code_points_of_a_png_count_more_than_its_profile(tmp_path):
    profile = b"a name\0\0" + zlib.compress(PROFILE)
    path = with_chunks(tmp_path / "a.png", (b"cICP", bytes((9, 16, 0, 1))), (b"iCCP", profile))
    with pytest.raises(ImageError, match=r"its colours are HDR or BT\.2020"):
        open_photo(path, "png")
    profile = b"a name\0\0" + zlib.compress(vips_profile("p3"))
    path = with_chunks(tmp_path / "a.png", (b"cICP", bytes((1, 13, 0, 1))), (b"iCCP", profile))
    assert open_photo(path, "png").attached["icc-profile-data"] == vips_profile("srgb")


def test_pages_of_several_sizes_are_not_counted_as_if_all_were_as_large(tmp_path, monkeypatch):
    pages = [Image.new("RGB", size, "red") for size in ((100, 100), (10, 10))]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    monkeypatch.setattr("subjectiveqe.images.LARGEST_PX", 15_000)
    assert copy(tmp_path / "in.tif", tmp_path / "out.tif").warnings == ("only the first page is kept",)


def test_primaries_of_a_png_are_said(tmp_path):
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    p3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    said = {
        "a": ((b"cHRM", p3),),
        "b": ((b"cHRM", srgb),),
        "c": ((b"sRGB", b"\0"), (b"cHRM", p3)),
        "e": ((b"cICP", bytes((1, 13, 0, 1))), (b"cHRM", p3)),
        "d": ((b"iCCP", b"a\0\0" + zlib.compress(PROFILE)), (b"cHRM", p3)),
    }
    for name, chunks in said.items():
        warnings = open_photo(with_chunks(tmp_path / f"{name}.png", *chunks), "png").warnings
        assert warnings == (("its primaries (cHRM) are not kept",) if name == "a" else ())


@pytest.mark.parametrize("kind", ["dng", "thumbnail", "mosaic", "cr2"])
def test_raw_files_of_cameras_are_refused(tmp_path, enhancer, draw_image, kind):
    path = tmp_path / "raw.tif"
    tags = {"dng": {50706: b"\1\4\0\0"}, "thumbnail": {254: 1}}.get(kind, {})
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]} if kind == "thumbnail" else {}
    Image.fromarray(draw_image((24, 32))).save(path, tiffinfo=tags, **more)
    made = path.read_bytes()
    if kind == "mosaic":
        place = made.index(struct.pack("<HHI", 262, 3, 1))
        made = made[: place + 8] + struct.pack("<H", 32803) + made[place + 10 :]
    if kind == "cr2":  # its name stands before the first table, which is moved
        made = made[:4] + struct.pack("<I", len(made)) + b"CR\2\0" + made[12:] + made[8:]
    path.write_bytes(made)
    [outcome] = enhance_files([path], None, enhancer, in_place=True).of("failed")
    assert outcome.reason == "is a camera's raw file, of which the sensor's picture is not read; develop it first"
    assert path.read_bytes() == made


def test_a_lone_picture_that_calls_itself_a_small_copy_is_read(tmp_path, draw_image):
    Image.fromarray(draw_image((24, 32))).save(tmp_path / "a.tif", tiffinfo={254: 1})
    assert copy(tmp_path / "a.tif", tmp_path / "b.tif").height == 24


def test_colours_of_no_known_kind_are_refused(tmp_path):
    tifftools_kind = 9  # ITU's Lab, which is not CIE's
    Image.new("RGB", (8, 8), (10, 200, 90)).save(tmp_path / "in.tif")
    made = (tmp_path / "in.tif").read_bytes()
    place = made.index(struct.pack("<HHI", 262, 3, 1))
    (tmp_path / "in.tif").write_bytes(made[: place + 8] + struct.pack("<H", tifftools_kind) + made[place + 10 :])
    with pytest.raises(ImageError, match=r"in\.tif: its colours are of a kind that is not known here; save it as RGB"):
        open_photo(tmp_path / "in.tif", "png")


def test_exif_that_a_tiff_says_otherwise_is_not_damaged(tmp_path):
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    Image.new("RGB", (8, 12)).save(tmp_path / "in.png", exif=tags)
    assert copy(tmp_path / "in.png", tmp_path / "out.tif").warnings == ()
    with Image.open(tmp_path / "out.tif") as seen:
        assert seen.getexif()[ORIENTATION] == 6


def test_a_gamma_of_a_png_is_said(tmp_path):
    for gamma in (100_000, 55_556, 45_455):
        plain = io.BytesIO()
        Image.new("L", (8, 8), 90).save(plain, "PNG")
        body = b"gAMA" + struct.pack(">I", gamma)
        chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
        data = plain.getvalue()
        (tmp_path / f"{gamma}.png").write_bytes(data[:33] + chunk + data[33:])
    assert open_photo(tmp_path / "100000.png", "png").warnings == ("its gamma (1) is not kept",)
    assert open_photo(tmp_path / "55556.png", "png").warnings == ("its gamma (0.55556) is not kept",)
    assert open_photo(tmp_path / "45455.png", "png").warnings == ()


def test_what_is_not_kept_is_said(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=95)
    assert copy(tmp_path / "ink.jpg", tmp_path / "ink.png").warnings == ("cmyk colours become sRGB",)
    red, green, blue = read_rgb(tmp_path / "ink.png")[4, 4].astype(int)
    assert red > 180 > 90 > max(green, blue)
    assert "icc-profile-data" in open_photo(tmp_path / "ink.png", "png").attached  # tagged sRGB

    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "half.png")
    assert copy(tmp_path / "half.png", tmp_path / "half.gif").warnings == (
        "gif has 256 colours, and pixels that are seen or not",
    )

    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert "only the first page is kept" in copy(tmp_path / "moving.gif", tmp_path / "still.jpg").warnings
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert copy(tmp_path / "moving.png", tmp_path / "still.jpg").warnings == ("only the first page is kept",)
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    assert copy(tmp_path / "pages.tif", tmp_path / "still.png").warnings == ("only the first page is kept",)
    frames[1] = frames[1].resize((9, 9))
    frames[0].save(tmp_path / "sizes.tif", save_all=True, append_images=frames[1:])
    assert "only the first page is kept" in copy(tmp_path / "sizes.tif", tmp_path / "one.tif").warnings

    Image.new("RGB", (8, 8)).save(tmp_path / "tagged.png", icc_profile=PROFILE)
    assert copy(tmp_path / "tagged.png", tmp_path / "bare.bmp").warnings == (
        "profile, EXIF and XMP are not kept, bmp has none",
    )

    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert copy(tmp_path / "clear.png", tmp_path / "c.jpg").warnings == ("alpha is laid over white, jpeg has none",)
    assert (read_rgb(tmp_path / "c.jpg") == 255).all()

    gain = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf hdrgm:Version='1.0'/></x:xmpmeta>"
    Image.new("RGB", (8, 8)).save(tmp_path / "hdr.jpg", xmp=gain)
    assert copy(tmp_path / "hdr.jpg", tmp_path / "sdr.jpg").warnings == ("its HDR gain map is not kept",)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".heic", ".tif", ".bmp", ".ppm", ".gif"])
def test_every_format_is_read(tmp_path, draw_image, enhancer, suffix):
    import pillow_heif

    pillow_heif.register_heif_opener()
    image = draw_image((40, 56))
    source = tmp_path / f"in{suffix}"
    Image.fromarray(image).save(source)
    assert np.abs(read_rgb(source).astype(int) - image).mean() < 12
    result = enhance_files([source], tmp_path / "out", enhancer)
    assert [o.reason for o in result.outcomes] == [""]
    written = result.outcomes[0].job.target
    assert written.suffix == {".ppm": ".png"}.get(suffix, suffix)
    assert np.abs(read_rgb(written).astype(int) - image).mean() < 16


def deep_ramp(channels):
    """uint16 (48, 64, channels): every channel another ramp from black to white."""
    rows, cols = np.mgrid[:48, :64] / [[[47]], [[63]]]
    planes = [cols, rows, (rows + cols) / 2, 1 - cols][:channels]
    return np.rint(np.stack(planes, axis=-1) * 65535).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["avif", "heic"])
def test_10_bits_stay_10_bits(tmp_path, name, channels):
    ramp = deep_ramp(channels)
    kind = "grey16" if channels == 1 else "rgb16"
    pyvips.Image.new_from_array(ramp).copy(interpretation=kind).pngsave(str(tmp_path / "in.png"))
    first, second = (tmp_path / f"{place}{FORMATS[name][0]}" for place in ("first", "second"))
    back = tmp_path / "back.png"
    made = copy(tmp_path / "in.png", first, Saving(lossless=True))
    assert made.warnings == (f"16-bit channels become 10-bit, {name} has no more here",)
    assert copy(first, second, Saving(lossless=True)).warnings == ()
    assert copy(second, back).warnings == ()
    pixels = pyvips.Image.new_from_file(str(back)).numpy().reshape(48, 64, -1).astype(int)
    # libheif codes in YCbCr unless RGB is asked for: a step or two of 10 bits.
    assert np.abs(pixels - ramp).max() <= 65535 / 1023 * 2.5
    assert pixels.max() == 65535
    assert len(np.unique(pixels)) > 256 or channels == 1


@pytest.mark.parametrize(
    ("suffix", "target"),
    [
        (".gif", ".gif"),
        (".webp", ".webp"),
        (".gif", ".webp"),
        (".tif", ".tif"),
        (".png", ".png"),
        (".png", ".webp"),
        (".gif", ".png"),
    ],
)
def test_every_frame_comes_along_and_is_a_picture_of_its_own(tmp_path, enhancer, suffix, target):
    frames = [Image.new("RGB", (40, 24), colour) for colour in ("red", "blue", "white")]
    source = tmp_path / f"in{suffix}"
    timing = {} if suffix == ".tif" else {"duration": [100, 250, 400], "loop": 3}
    frames[0].save(source, save_all=True, append_images=frames[1:], **timing)
    saving = Saving({".gif": "gif", ".webp": "webp", ".tif": "tiff", ".png": "png"}[target])
    [outcome] = enhance_files([source], tmp_path / "out", enhancer, saving=saving).of("done")
    assert outcome.warnings == ()
    with Image.open(outcome.job.target) as moving:
        assert moving.n_frames == 3
        for number, frame in enumerate(frames):
            moving.seek(number)
            # No colour of the frame before or after at the edges.
            assert np.abs(np.asarray(moving.convert("RGB")).astype(int) - np.asarray(frame)).max() <= 4
            if timing and target in (".gif", ".png"):
                assert moving.info["duration"] == timing["duration"][number]
        if timing:
            # GIF counts repetitions, WebP showings.
            assert moving.info["loop"] == 3 + (suffix == ".gif" and target != ".gif")


def test_a_palette_becomes_right_rgb(tmp_path, draw_image):
    Image.fromarray(draw_image((40, 56))).quantize(16).save(tmp_path / "p.png")
    copy(tmp_path / "p.png", tmp_path / "out.png")
    with Image.open(tmp_path / "p.png") as before, Image.open(tmp_path / "out.png") as after:
        assert np.array_equal(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")))


def test_colours_nobody_sees_neither_change_nor_bleed(tmp_path, enhancer):
    hidden = {name: np.zeros((300, 200, 4), np.uint8) for name in ("black", "white")}
    for name, picture in hidden.items():
        picture[..., :3] = 255 if name == "white" else 0
        picture[100:220, 60:140] = (90, 120, 60, 255)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    enhance_files([tmp_path / "black.png", tmp_path / "white.png"], tmp_path / "out", enhancer)
    black, white = (np.asarray(Image.open(tmp_path / "out" / f"{name}.png")) for name in ("black", "white"))
    seen = black[..., 3] > 0
    assert np.array_equal(black[seen], white[seen])
    assert np.abs(black[seen][:, :3].astype(int) - (90, 120, 60)).max() <= 1  # no dark fringe
    for name, out in (("black", black), ("white", white)):
        assert np.array_equal(out[~seen], hidden[name][~seen])


def test_quality_chroma_and_lossless_do_what_they_say(tmp_path, draw_image):
    image = draw_image((120, 160))
    Image.fromarray(image).save(tmp_path / "in.png")
    sizes = {}
    for quality in (30, 95):
        copy(tmp_path / "in.png", tmp_path / f"{quality}.jpg", Saving(quality=quality))
        sizes[quality] = (tmp_path / f"{quality}.jpg").stat().st_size
    assert sizes[30] < sizes[95] / 2
    copy(tmp_path / "in.png", tmp_path / "full.jpg")
    copy(tmp_path / "in.png", tmp_path / "half.jpg", Saving(chroma="420"))
    for name, sampling in (("full.jpg", (1, 1)), ("half.jpg", (2, 2))):
        with Image.open(tmp_path / name) as picture:
            assert picture.layer[0][1:3] == sampling
    for name in ("webp", "avif"):
        copy(tmp_path / "in.png", tmp_path / f"exact.{name}", Saving(lossless=True))
        assert np.array_equal(read_rgb(tmp_path / f"exact.{name}"), image)
    for options in ({"format": "jxl"}, {"quality": 0}, {"chroma": "411"}, {"format": "jpeg", "lossless": True}):
        with pytest.raises(ConfigError):
            Saving(**options)


@pytest.mark.parametrize("kind", ["empty", "text", "cut.jpg", "cut.png", "cut.tif", "cut.webp", "cut.heic"])
def test_damage_is_one_line_and_leaves_nothing(tmp_path, draw_image, enhancer, kind):
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = tmp_path / kind
    if kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.touch()
    else:
        Image.fromarray(draw_image((164, 164))).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = enhance_files([path], tmp_path / "out", enhancer)
    [outcome] = result.of("failed")
    assert outcome.reason
    assert "\n" not in outcome.reason
    assert "disk" not in outcome.reason
    assert not list((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else True


def test_alpha_of_a_lossy_webp_is_exact(tmp_path, draw_image):
    rgba = np.dstack([draw_image((90, 50)), draw_image((90, 50), seed=1)[..., 0]])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    copy(tmp_path / "a.png", tmp_path / "a.webp", Saving(quality=20))
    with Image.open(tmp_path / "a.webp") as seen:
        assert np.array_equal(np.asarray(seen)[..., 3], rgba[..., 3])


def test_only_large_pictures_have_the_standards_huffman_tables(tmp_path, draw_image, monkeypatch):
    Image.fromarray(draw_image((120, 160))).save(tmp_path / "in.png")
    copy(tmp_path / "in.png", tmp_path / "small.jpg")
    monkeypatch.setattr(saving, "_HELD_PX", 120 * 160 - 1)
    copy(tmp_path / "in.png", tmp_path / "large.jpg")
    assert (tmp_path / "small.jpg").stat().st_size < (tmp_path / "large.jpg").stat().st_size
    assert np.array_equal(read_rgb(tmp_path / "small.jpg"), read_rgb(tmp_path / "large.jpg"))


def test_a_name_that_lies_is_no_matter(tmp_path, draw_image):
    Image.fromarray(draw_image((20, 30))).save(tmp_path / "in.jpg", "PNG")
    copy(tmp_path / "in.jpg", tmp_path / "out.png")
    assert np.array_equal(read_rgb(tmp_path / "out.png"), draw_image((20, 30)))


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch, draw_image):
    from subjectiveqe import images

    Image.fromarray(draw_image((100, 100))).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "LARGEST_PX", 9_000)
    with pytest.raises(ImageError, match=r"100x100 px are more than the 0 megapixels that a png may have here"):
        open_photo(tmp_path / "a.png", "png")


def test_a_side_too_long_for_the_format_is_told_before_the_work(tmp_path):
    Image.fromarray(np.zeros((8, 17000, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"17000x8 px are more than the 16383 px a side that webp can hold"):
        copy(tmp_path / "a.png", tmp_path / "a.webp")


def test_an_animated_png_keeps_all_it_is(tmp_path, monkeypatch):
    """Gray and alpha, profile, EXIF, XMP, resolution, timing; a still picture that is no frame is named."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (24, 40, 4), np.uint8), "RGBA") for _ in range(3)]
    exif = Image.Exif()
    exif[0x010E] = "three frames"
    words = PngInfo()
    words.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options = {"duration": [100, 250, 400], "loop": 2, "dpi": (300, 300), "icc_profile": PROFILE, "exif": exif}
    options["pnginfo"] = words
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], disposal=1, **options)
    assert copy(tmp_path / "in.png", tmp_path / "out.png").warnings == ()
    assert open_photo(tmp_path / "out.png", "png").attached["xmp-data"] == XMP
    with Image.open(tmp_path / "in.png") as before, Image.open(tmp_path / "out.png") as after:
        assert (after.n_frames, after.info["loop"], after.info["icc_profile"]) == (3, 2, PROFILE)
        assert after.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert after.getexif()[0x010E] == "three frames"
        for number in range(3):
            before.seek(number)
            after.seek(number)
            assert after.info["duration"] == options["duration"][number]
            assert np.array_equal(np.asarray(after.convert("RGBA")), np.asarray(before.convert("RGBA")))

    still, *gray = (Image.fromarray(rng.integers(0, 256, (24, 40), np.uint8)) for _ in range(3))
    still.save(tmp_path / "still.png", save_all=True, append_images=gray, default_image=True)
    copied = copy(tmp_path / "still.png", tmp_path / "frames.png")
    assert copied.warnings == ("the picture for viewers that do not animate is not kept",)
    assert copied.is_gray
    with Image.open(tmp_path / "frames.png") as after:
        assert (after.n_frames, after.mode) == (2, "L")
        for number, frame in enumerate(gray):
            after.seek(number)
            assert np.array_equal(np.asarray(after), np.asarray(frame))

    monkeypatch.setattr("subjectiveqe.images.LARGEST_WHOLE_PX", 3 * 24 * 40 - 1)
    with pytest.raises(ImageError, match=r"in\.png: 3 frames of 40x24 px are more than the 0 megapixels"):
        copy(tmp_path / "in.png", tmp_path / "never.png")
    frames[0].save(tmp_path / "in.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"in\.webp: 3 frames of 40x24 px are more than the 0 megapixels"):
        copy(tmp_path / "in.webp", tmp_path / "never.png")
    monkeypatch.undo()

    content = (tmp_path / "in.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError, match=r"cut\.png: cannot be decoded"):
        copy(tmp_path / "cut.png", tmp_path / "never.png")
    assert not (tmp_path / "never.png").exists()


@pytest.mark.parametrize("name", ["jpeg", "webp", "png"])
def test_a_turned_tiff_without_other_tags_is_seen_upright(tmp_path, name):
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    Image.new("RGB", (64, 128), (10, 200, 10)).save(tmp_path / "in.tif", exif=turned)
    target = tmp_path / f"out{FORMATS[name][0]}"
    copy(tmp_path / "in.tif", target)
    assert read_rgb(target).shape == (64, 128, 3)


def test_an_orientation_that_pixels_have_taken_on_is_said_no_more(tmp_path):
    frames = [Image.new("RGB", (64, 128), colour) for colour in ("red", "blue")]
    Image.new("RGB", (64, 128)).save(tmp_path / "in.jpg", exif=exif(6))
    for name in ("heic", "avif", "png"):
        copy(tmp_path / "in.jpg", tmp_path / f"out.{name}")
        with Image.open(tmp_path / f"out.{name}") as seen:
            assert seen.size == (128, 64), name
            assert seen.getexif().get(ORIENTATION, 1) == 1, name
            assert seen.getexif()[MAKER] == "A Maker"
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:], exif=exif(1))
    copy(tmp_path / "moving.png", tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as seen:
        assert seen.getexif()[MAKER] == "A Maker"


def save_heic(path, code_points, bits=8):
    import pillow_heif

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8 if bits == 8 else np.uint16) * (1 if bits == 8 else 257)
    made = pillow_heif.from_bytes("RGB" if bits == 8 else "RGB;16", (64, 64), pixels.tobytes())
    names = ("color_primaries", "transfer_characteristics", "matrix_coefficients")
    made.save(path, quality=90, **dict(zip(names, code_points, strict=True)))


def test_wide_colours_are_said_by_a_profile_and_hdr_goes_into_heic_alone(tmp_path):
    save_heic(tmp_path / "p3.heic", (12, 13, 6))
    for name in ("jpeg", "heic", "png"):
        target = tmp_path / f"out{FORMATS[name][0]}"
        copy(tmp_path / "p3.heic", target)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(open_photo(target, name).attached["icc-profile-data"]))
        assert "P3" in ImageCms.getProfileDescription(profile)
    save_heic(tmp_path / "pq.heic", (9, 16, 9), bits=10)
    assert copy(tmp_path / "pq.heic", tmp_path / "better.heic").code_points == (9, 16, 9)
    assert open_photo(tmp_path / "better.heic", "heic").code_points == (9, 16, 9)
    with pytest.raises(ImageError, match=r"pq\.heic: its colours are HDR or BT.2020 .*; add --format heic"):
        open_photo(tmp_path / "pq.heic", "jpeg")
    save_heic(tmp_path / "srgb.heic", (1, 13, 6))
    assert "icc-profile-data" not in open_photo(tmp_path / "srgb.heic", "jpeg").attached


def test_texts_of_a_png_come_along_into_a_png(tmp_path):
    words, steps = PngInfo(), "a cat, 20 steps" * 100
    words.add_text("parameters", steps)
    words.add_itxt("Author", "Zoë")
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png", pnginfo=words)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:], pnginfo=words)
    for name in ("in.png", "moving.png"):
        assert copy(tmp_path / name, tmp_path / "out.png").warnings == ()
        with Image.open(tmp_path / "out.png") as seen:
            assert seen.text == {"parameters": steps, "Author": "Zoë"}
        copy(tmp_path / name, tmp_path / "bare.png", Saving(strip=True))
        with Image.open(tmp_path / "bare.png") as seen:
            assert seen.text == {}
    words.add_text("Raw profile type exif", "of a program that wrote EXIF as a text")
    Image.new("RGB", (8, 8)).save(tmp_path / "raw.png", pnginfo=words)
    for name in ("in.png", "raw.png"):
        said = copy(tmp_path / name, tmp_path / "out.jpg").warnings
        assert said == ("its texts (parameters, Author) are not kept, jpeg has none",)


def test_comments_of_a_jpeg_come_along_into_a_jpeg(tmp_path):
    comments = (b"CREATOR: a program", "Zoë".encode())
    Image.new("RGB", (8, 8)).save(tmp_path / "one.jpg", comment=comments[0], exif=exif())
    made = (tmp_path / "one.jpg").read_bytes()
    second = b"\xff\xfe" + struct.pack(">H", 2 + len(comments[1])) + comments[1]
    (tmp_path / "in.jpg").write_bytes(made[:2] + second + b"\xff\xff" + made[2:])
    assert copy(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings == ()
    assert set(read_comments(tmp_path / "out.jpg")) == set(read_comments(tmp_path / "in.jpg"))
    assert len(read_comments(tmp_path / "out.jpg")) == 2
    with Image.open(tmp_path / "out.jpg") as seen:
        assert seen.app["COM"] in comments
        assert seen.getexif()[MAKER] == "A Maker"
        seen.load()
    copy(tmp_path / "in.jpg", tmp_path / "bare.jpg", Saving(strip=True))
    assert read_comments(tmp_path / "bare.jpg") == ()
    assert copy(tmp_path / "in.jpg", tmp_path / "out.png").warnings == ("its comments are not kept, png has none",)


@pytest.mark.parametrize("cut", [3, 5, 30])
def test_a_cut_jpeg_has_the_comments_before_the_cut(tmp_path, cut):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.jpg", comment=b"what was said")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "in.jpg").read_bytes()[:cut])
    assert read_comments(tmp_path / "cut.jpg") == ()
    (tmp_path / "none.jpg").write_bytes(b"\xff\xd8\xff\xfe\0\1\xff\xfe\0\3a")
    assert read_comments(tmp_path / "none.jpg") == ()


def test_a_geotiff_stays_in_its_place(tmp_path):
    place = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0), 34737: "WGS 84|", 42113: "0"}
    tags = ImageFileDirectory_v2()
    for tag, value in place.items():
        tags[tag] = value
        tags.tagtype[tag] = 2 if isinstance(value, str) else 12
    Image.new("RGB", (8, 8)).save(tmp_path / "in.tif", tiffinfo=tags)
    assert copy(tmp_path / "in.tif", tmp_path / "out.tif").warnings == ()
    with Image.open(tmp_path / "out.tif") as seen:
        assert {tag: seen.tag_v2[tag] for tag in place} == place
    said = copy(tmp_path / "in.tif", tmp_path / "out.jpg").warnings
    assert said == ("its place on Earth (GeoTIFF) is not kept, jpeg has none",)


def test_a_motion_photo_is_told_that_it_will_rest(tmp_path):
    motion = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf GCamera:MotionPhoto='1' GCamera:MicroVideo='1'/></x:xmpmeta>"
    Image.new("RGB", (8, 8)).save(tmp_path / "in.jpg", xmp=motion)
    assert copy(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings == ("its motion video is not kept",)


def test_16_bits_of_a_gray_map_stay(tmp_path):
    values = np.linspace(0, 65535, 48).astype(">u2").reshape(6, 8)
    (tmp_path / "in.pgm").write_bytes(b"P5 8 6 65535\n" + values.tobytes())
    photo = copy(tmp_path / "in.pgm", tmp_path / "out.png")
    assert (photo.dtype, photo.bands) == (np.uint16, 1)
    with Image.open(tmp_path / "out.png") as seen:
        assert np.array_equal(np.asarray(seen), values)


def test_what_frames_of_16_bits_lose_is_said(tmp_path):
    def frame(value, number):
        control = struct.pack(">IIIIIHHBB", number, 4, 2, 0, 0, 1, 10, 0, 0)
        rows = zlib.compress((b"\0" + struct.pack(">12H", *[value] * 12)) * 2)
        pixels = png_chunk(b"fdAT", struct.pack(">I", number + 1) + rows) if number else png_chunk(b"IDAT", rows)
        return png_chunk(b"fcTL", control) + pixels

    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)) + png_chunk(
        b"acTL", struct.pack(">II", 2, 0)
    )
    content = b"\x89PNG\r\n\x1a\n" + head + frame(1000, 0) + frame(60000, 1) + png_chunk(b"IEND", b"")
    (tmp_path / "in.png").write_bytes(content)
    photo = copy(tmp_path / "in.png", tmp_path / "out.png")
    assert (photo.height, photo.dtype) == (4, np.uint8)
    assert photo.warnings == ("what frames have beyond 8 bits is not kept",)


@pytest.mark.parametrize("white", [65535, 1023, 256])
def test_16_bits_of_a_map_of_pixels_stay(tmp_path, white):
    values = np.linspace(0, white, 144).astype(">u2").reshape(6, 8, 3)
    (tmp_path / "in.ppm").write_bytes(b"P6 8 6 %d\n" % white + values.tobytes())
    photo = copy(tmp_path / "in.ppm", tmp_path / "out.png")
    assert (photo.dtype, photo.bands) == (np.uint16, 3)
    stored = pyvips.Image.new_from_file(str(tmp_path / "out.png")).numpy()
    assert np.array_equal(stored, np.rint(values * (65535 / white)).astype(np.uint16))
    (tmp_path / "cut.ppm").write_bytes(b"P6 8 6 65535\n" + bytes(100))
    with pytest.raises(ImageError, match=r"cut\.ppm: cannot be read as a picture"):
        copy(tmp_path / "cut.ppm", tmp_path / "out.png")


def test_heic_is_lossless_where_asked_whatever_the_chroma(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.png")
    for chroma in ("444", "420"):
        copy(tmp_path / "in.png", tmp_path / "out.heic", Saving(lossless=True, chroma=chroma))
        assert np.array_equal(read_rgb(tmp_path / "out.heic"), noise)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which files are open")
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "gif", "bmp", "avif"])
def test_a_file_that_has_been_read_is_not_open_any_more(tmp_path, draw_image, name):
    """Windows does not let an open file be replaced."""
    path = tmp_path / f"in{FORMATS[name][0]}"
    Image.fromarray(draw_image((300, 400))).save(path)
    photo = open_photo(path, "png")
    assert len(photo.read(100)) == 100
    photo.close()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert str(path) not in [str(link.readlink()) for link in links]
    assert str(path) not in Path("/proc/self/maps").read_text()
