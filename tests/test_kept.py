"""What a file says beside its pixels is in the copy as it was: EXIF, IPTC, XMP and print resolution, to the byte."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from xml.etree import ElementTree

import numpy as np
import pytest
import pyvips
from PIL import Image, IptcImagePlugin

from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.formats.exif import (
    density_of,
    exif_of_tiff,
    with_density,
    with_orientation,
    without_thumbnail,
)
from subjectiveqe.formats.iptc import iptc_records
from subjectiveqe.formats.jpegsegments import application, jfif, read_application
from subjectiveqe.formats.jpegxmp import join_xmp, read_extension, without_gain_map, xmp_segments
from subjectiveqe.formats.photos import FORMATS, open_photo
from subjectiveqe.formats.saving import Saving
from subjectiveqe.formats.webpchunks import replace_chunk
from subjectiveqe.images import read_rgb
from test_photos import MAKER, ORIENTATION, PROFILE, copy, exif

RATING, COMPUTER = 0x4746, 0x013C
RECORDS = b"\x1c\x02\x00\0\2\0\4" + b"\x1c\x02\x78\0\5Hello" + b"\x1c\x02\x19\0\3key"
RDF = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>%s</rdf:RDF></x:xmpmeta>"
GAIN_MAP = RDF % b"<rdf:Description xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/' hdrgm:Version='1.0'/>"


def save(path, *segments, **options):
    """A small JPEG file with segments at its start."""
    made = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(made, "JPEG", **options)
    path.write_bytes(made.getvalue()[:2] + b"".join(segments) + made.getvalue()[2:])


def dpi_of(path):
    with Image.open(path) as picture:
        tags = picture.getexif()
        dpi = picture.info.get("dpi", (tags.get(0x011A, 0), tags.get(0x011B, 0)))
        return None if min(dpi) == 0 or getattr(picture, "tag_v2", {}).get(296) == 1 else tuple(map(round, dpi))


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "bmp", "webp", "avif", "heic"])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff", "bmp", "cm"])
def test_print_resolution_comes_along_without_exif(tmp_path, source, target):
    name, out = tmp_path / f"in{FORMATS.get(source, ('.tif',))[0]}", tmp_path / f"out{FORMATS[target][0]}"
    told = (
        {"resolution_unit": 3, "x_resolution": 118.11, "y_resolution": 59.06} if source == "cm" else {"dpi": (300, 150)}
    )
    Image.new("RGB", (96, 64), "red").save(name, **told)
    assert copy(name, out).warnings == ()
    assert dpi_of(out) == (300, 150)
    copy(name, out, Saving(strip=True))
    assert dpi_of(out) is None


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "bmp"])
@pytest.mark.parametrize("source", ["jpeg", "png", "tiff", "webp", "avif", "gif"])
def test_no_print_resolution_is_made_up(tmp_path, source, target):
    name, out = tmp_path / f"in{FORMATS[source][0]}", tmp_path / f"out{FORMATS[target][0]}"
    Image.new("RGB", (96, 64), "red").save(name)
    for _ in range(2):
        copy(name, out)
        assert dpi_of(out) is None
        assert open_photo(out, target).density == (1, 1)
        name = out.replace(tmp_path / f"again{FORMATS[target][0]}")
    tagged = tmp_path / f"tagged{FORMATS[source][0]}"
    Image.new("RGB", (96, 64), "red").save(tagged, exif=exif())
    for name in ("tagged.webp", "tagged.avif", "tagged.heic"):
        copy(tagged, tmp_path / f"out-{name}")
        with Image.open(tmp_path / f"out-{name}") as seen:
            assert 0x011A not in seen.getexif()


def test_72_dpi_that_are_told_are_told_again(tmp_path):
    for name, target in (("a.jpg", "b.png"), ("a.png", "b.jpg")):
        Image.new("RGB", (96, 64), "red").save(tmp_path / name, dpi=(72, 72))
        copy(tmp_path / name, tmp_path / target)
        assert dpi_of(tmp_path / target) == (72, 72)


def test_print_resolution_that_exif_alone_tells_is_told_again(tmp_path):
    tags = exif()
    tags[0x011A], tags[0x011B], tags[0x0128] = 118.0, 118.0, 3
    Image.new("RGB", (96, 64), "red").save(tmp_path / "in.webp", exif=tags)
    for name in ("out.png", "out.jpg", "out.tif"):
        copy(tmp_path / "in.webp", tmp_path / name)
        assert dpi_of(tmp_path / name) == (300, 300)
    assert density_of(b"") is None
    assert density_of(tags.tobytes()) == (11.8, 11.8)


def test_print_resolution_that_cannot_be_is_none(tmp_path):
    made_up = {"resolution_unit": 2, "x_resolution": 1e9, "y_resolution": 1e9}
    Image.new("RGB", (96, 64), "red").save(tmp_path / "in.tif", **made_up)
    for name in ("out.jpg", "out.bmp", "out.tif"):
        copy(tmp_path / "in.tif", tmp_path / name)
        assert dpi_of(tmp_path / name) is None


def test_pages_have_the_print_resolution_of_the_first(tmp_path):
    with Image.new("RGB", (96, 64), "red") as first, Image.new("RGB", (96, 64), "blue") as last:
        first.encoderinfo, last.encoderinfo = {"dpi": (300, 300)}, {"dpi": (72, 72)}
        first.save(tmp_path / "in.tif", save_all=True, append_images=[last], dpi=(300, 300))
    with Image.open(tmp_path / "in.tif") as made:
        made.seek(1)
        assert made.info["dpi"] == (72, 72)
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    assert dpi_of(tmp_path / "out.tif") == (300, 300)


def photoshop(*blocks):
    """Segment APP13 of blocks, (number, name, content) each."""
    content = b""
    for number, name, data in blocks:
        named = bytes([len(name)]) + name
        content += b"8BIM" + struct.pack(">H", number) + named + b"\0" * (len(named) % 2)
        content += struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
    return application(13, b"Photoshop 3.0\0" + content)


@pytest.mark.parametrize("target", ["jpeg", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "tiff", "long"])
def test_iptc_goes_through_jpeg_and_tiff(tmp_path, source, target):
    name, out = tmp_path / f"in{FORMATS.get(source, ('.tif',))[0]}", tmp_path / f"out{FORMATS[target][0]}"
    if source == "jpeg":
        save(name, photoshop((0x0425, b"odd", b"sum"), (0x0404, b"a name", RECORDS)))
    else:
        Image.new("RGB", (96, 64), "red").save(name, tiffinfo={33723: RECORDS + b"\0" * (-len(RECORDS) % 4)})
    if source == "long":  # Adobe's programs write it as 32-bit numbers, whose bytes stay in order
        made = name.read_bytes()
        place = made.index(struct.pack("<HH", 33723, 7)) + 2
        length = (len(RECORDS) + 3) // 4
        name.write_bytes(made[:place] + struct.pack("<HI", 4, length) + made[place + 6 :])
    assert copy(name, out).warnings == ()
    with Image.open(out) as seen:
        assert IptcImagePlugin.getiptcinfo(seen) == {(2, 0): b"\0\4", (2, 120): b"Hello", (2, 25): b"key"}
        seen.load()
    copy(name, tmp_path / "bare.jpg", Saving(strip=True))
    assert b"Hello" not in (tmp_path / "bare.jpg").read_bytes()


def test_blocks_beside_iptc_stay_but_for_the_thumbnail(tmp_path):
    blocks = [
        (0x03ED, b"odd", b"resolution"),
        (0x0404, b"", RECORDS),
        (0x040C, b"", b"old pixels!"),
        (0x0425, b"", b"sum"),
    ]
    save(tmp_path / "in.jpg", photoshop(*blocks))
    copy(tmp_path / "in.jpg", tmp_path / "out.jpg")
    del blocks[2]
    assert photoshop(*blocks) in (tmp_path / "out.jpg").read_bytes()


def test_blocks_go_on_from_segment_to_segment(tmp_path):
    """Of which Photoshop makes as many as it takes; a block that fits into one is not cut."""
    long = np.random.default_rng(0).bytes(64_900)
    segments = [photoshop((0x0BB7, b"", long)), photoshop((0x0404, b"", RECORDS))]
    save(tmp_path / "in.jpg", b"".join(segments))
    assert copy(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings == ()
    assert photoshop((0x0BB7, b"", long), (0x0404, b"", RECORDS)) in (tmp_path / "out.jpg").read_bytes()
    records = RECORDS * 4000
    longer = photoshop((0x0BB7, b"", b"short"))[18:] + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records
    parts = [longer[place : place + 60_000] for place in range(0, len(longer), 60_000)]
    save(tmp_path / "in.jpg", b"".join(application(13, b"Photoshop 3.0\0" + part) for part in parts))
    copy(tmp_path / "in.jpg", tmp_path / "out.jpg")
    assert b"".join(read_application(tmp_path / "out.jpg", 13, b"Photoshop 3.0\0")) == longer


@pytest.mark.parametrize("name", ["png", "webp", "avif", "heic", "gif", "bmp"])
def test_iptc_is_named_where_it_has_no_place(tmp_path, name):
    of_gif = ("gif has 256 colours, and pixels that are seen or not",) if name == "gif" else ()
    save(tmp_path / "in.jpg", photoshop((0x0404, b"", RECORDS)))
    warnings = copy(tmp_path / "in.jpg", tmp_path / f"out.{name}").warnings
    assert set(warnings) == {f"IPTC is not kept, {name} has none", *of_gif}
    save(tmp_path / "none.jpg", photoshop((0x03ED, b"", b"resolution")))
    assert copy(tmp_path / "none.jpg", tmp_path / f"out.{name}").warnings == of_gif


def test_damaged_iptc_is_no_iptc():
    whole = photoshop((0x0404, b"", RECORDS))[4:]
    assert iptc_records(whole) == RECORDS
    assert not any(iptc_records(whole[:end]) for end in range(len(whole) - 1))
    assert iptc_records(b"something else") == b""


def long_xmp():
    words = np.random.default_rng(0).integers(97, 123, 150_000, np.uint8).tobytes()
    return RDF % (b"<rdf:Description xmlns:a='urn:a' a:b='c'><a:words>%s</a:words></rdf:Description>" % words)


def properties(xmp):
    """All properties in a packet, by name."""
    tree = ElementTree.fromstring(xmp)
    found = {}
    for node in tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"):
        found |= node.attrib | {child.tag: child.text for child in node}
    return {name: value for name, value in found.items() if "22-rdf" not in name}


def test_long_xmp_goes_into_a_jpeg_and_out_of_it(tmp_path):
    xmp = long_xmp()
    picture = pyvips.Image.black(96, 64, bands=3).copy(interpretation="srgb")
    picture.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    picture.webpsave(str(tmp_path / "in.webp"))
    for name in ("out.jpg", "again.jpg", "back.png"):
        source = {"out.jpg": "in.webp", "again.jpg": "out.jpg", "back.png": "again.jpg"}[name]
        assert copy(tmp_path / source, tmp_path / name).warnings == ()
    # As the specification has it: the digest of the whole, its length, and where each piece begins.
    pieces = read_application(tmp_path / "again.jpg", 1, b"http://ns.adobe.com/xmp/extension/\0")
    digest = hashlib.md5(xmp).hexdigest().upper().encode()
    assert [piece[:40] for piece in pieces] == [
        digest + struct.pack(">II", len(xmp), start) for start in range(0, len(xmp), 65400)
    ]
    assert b"".join(piece[40:] for piece in pieces) == xmp
    with Image.open(tmp_path / "again.jpg") as seen:
        assert b'HasExtendedXMP="' + digest in seen.info["xmp"]
        seen.load()
    assert properties(open_photo(tmp_path / "back.png", "png").attached["xmp-data"]) == properties(xmp)
    copy(tmp_path / "out.jpg", tmp_path / "bare.jpg", Saving(strip=True))
    assert (tmp_path / "bare.jpg").stat().st_size < 10_000


def test_room_for_edits_does_not_make_xmp_long():
    packet = b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?>%s<?xpacket end='w'?>" % (RDF % b"" + b" " * 70_000)
    assert xmp_segments(packet) == [application(1, b"http://ns.adobe.com/xap/1.0/\0" + RDF % b"")]


def test_damaged_pieces_of_long_xmp_are_named(tmp_path):
    first, *rest = xmp_segments(long_xmp())
    save(tmp_path / "in.jpg", first, *rest[:-1])
    said = copy(tmp_path / "in.jpg", tmp_path / "out.png").warnings
    assert said == ("XMP beyond 64 KB is damaged and not kept",)
    save(tmp_path / "in.jpg", first, *reversed(rest))
    xmp = first[4 + len(b"http://ns.adobe.com/xap/1.0/\0") :]
    assert properties(join_xmp(xmp, read_extension(tmp_path / "in.jpg"))) == properties(long_xmp())
    assert join_xmp(RDF % b"", rest) is None
    unbound = xmp_segments(long_xmp().replace(b" xmlns:a='urn:a'", b""))
    assert join_xmp(unbound[0][4 + len(b"http://ns.adobe.com/xap/1.0/\0") :], unbound[1:]) is None


def second_picture(path, kind):
    """A JPEG file with another one behind it, and how that is told."""
    pictures = [Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    if kind == "ultra hdr":
        light = pyvips.Image.black(96, 64, bands=3).copy(interpretation="scrgb").cast("float") + 2.0
        light.copy(interpretation="scrgb").uhdrsave(str(path))
        return
    pictures[0].save(path, "MPO", save_all=True, append_images=pictures[1:])
    made = path.read_bytes()
    if kind == "iso":
        path.write_bytes(made[:2] + application(2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0") + made[2:])
    if kind == "preview":  # as many cameras put it behind every picture
        place = made.rindex(struct.pack("<I", 0x030000), 0, made.index(b"\xff\xdb")) + 16
        path.write_bytes(made[:place] + struct.pack("<I", 0x010002) + made[place + 4 :])
    if kind == "damaged":
        path.write_bytes(made.replace(b"MPF\0II*\0\x08\0", b"MPF\0II*\0\x08\xff"))


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("ultra hdr", "its HDR gain map"),
        ("iso", "its HDR gain map"),
        ("mpo", "its second picture (MPO)"),
        ("preview", ""),
        ("damaged", ""),
    ],
)
def test_a_second_picture_is_named(tmp_path, kind, lost):
    second_picture(tmp_path / "in.jpg", kind)
    for name in ("out.jpg", "out.png"):
        said = copy(tmp_path / "in.jpg", tmp_path / name).warnings
        assert said == ((f"{lost} is not kept",) if lost else ())
    with Image.open(tmp_path / "out.jpg") as seen:
        assert seen.format == "JPEG"  # and not MPO


def test_a_gain_map_that_is_gone_is_not_announced(tmp_path):
    save(tmp_path / "in.jpg", xmp=GAIN_MAP)
    for name in ("out.jpg", "out.png"):
        assert copy(tmp_path / "in.jpg", tmp_path / name).warnings == ("its HDR gain map is not kept",)
        attached = open_photo(tmp_path / name, "png").attached["xmp-data"]
        assert b"hdrgm:Version" not in attached
        assert properties(attached) == {}
    elements = b"<hdrgm:Version>1.0</hdrgm:Version><a:b>c</a:b><hdrgm:Gamma/><hdrgm:Max a='b'><x/></hdrgm:Max>"
    assert without_gain_map(elements) == b"<a:b>c</a:b>"


def tags_of_a_camera(order="<"):
    """An EXIF block with tags that few programs know, and a maker's note that tells where it lies in it."""
    tags = exif()
    tags.endian = order
    tags[RATING], tags[COMPUTER], tags[0xC4A5] = 4, "A Computer", b"PrintIM\x000300"
    tags[0x8769] = {0x9003: "2019:02:03 04:05:06", 0x927C: b"A Maker\0" + b"note" * 30, 0xFDE8: "a tag of tomorrow"}
    return tags.tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif", "heic"])
def test_exif_is_the_block_it_was(tmp_path, name, order):
    block = tags_of_a_camera(order)
    save(tmp_path / "in.jpg", exif=block, icc_profile=PROFILE)
    target = tmp_path / f"out{FORMATS[name][0]}"
    assert copy(tmp_path / "in.jpg", target).warnings == ()
    with Image.open(target) as seen:
        assert seen.info["exif"].removeprefix(b"Exif\0\0") == block.removeprefix(b"Exif\0\0")
        seen.load()
    again = tmp_path / f"again{FORMATS[name][0]}"
    copy(target, again)
    assert block.removeprefix(b"Exif\0\0") in again.read_bytes()
    assert again.read_bytes().count(b"A Computer") == 1
    copy(target, tmp_path / f"bare{FORMATS[name][0]}", Saving(strip=True))
    with Image.open(tmp_path / f"bare{FORMATS[name][0]}") as seen:
        assert not seen.info.get("exif")


ODD_BLOCKS = [b"", bytes(100), b"Exif\0\0II*\0", b"\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", b"\xff" * 100, b"Exif\0\0" * 2]


@pytest.mark.parametrize("name", [*FORMATS])
@pytest.mark.parametrize("odd", ODD_BLOCKS)
def test_an_exif_block_that_is_none_spoils_no_file(tmp_path, odd, name):
    save(tmp_path / "in.jpg", exif=b"Exif\0\0" + odd)
    out = tmp_path / f"out{FORMATS[name][0]}"
    copy(tmp_path / "in.jpg", out)
    save(tmp_path / "bare.jpg")
    copy(tmp_path / "bare.jpg", bare := tmp_path / f"bare{FORMATS[name][0]}")
    with Image.open(out) as seen, Image.open(bare) as expected:
        assert seen.tobytes() == expected.tobytes()


def test_what_an_avif_cannot_hold_is_said(tmp_path):
    save(tmp_path / "in.jpg", exif=b"Exif\0\0" + bytes(100))
    assert copy(tmp_path / "in.jpg", tmp_path / "out.avif").warnings == ("EXIF is damaged and not kept",)


def test_an_avif_whose_exif_is_none_is_read(tmp_path):
    save(tmp_path / "in.jpg", exif=tags_of_a_camera())
    copy(tmp_path / "in.jpg", tmp_path / "out.avif")
    content = (tmp_path / "out.avif").read_bytes()
    place = content.rindex(b"Exif\0\0") + 6
    (tmp_path / "odd.avif").write_bytes(content[:place] + b"\0\0\0\0" + content[place + 4 :])
    with pytest.raises(Exception, match="Exif"), Image.open(tmp_path / "odd.avif") as seen:
        seen.load()
    assert np.abs(read_rgb(tmp_path / "odd.avif").astype(int) - read_rgb(tmp_path / "out.avif")).max() <= 2


@pytest.mark.parametrize("turned", [1, 6])
@pytest.mark.parametrize("name", ["avif", "jpeg", "heic"])
def test_exif_of_a_turned_avif_is_the_block_it_was(tmp_path, turned, name):
    block = with_orientation(tags_of_a_camera() + b"behind all tables", turned)
    save(tmp_path / "in.jpg", exif=block)
    copy(tmp_path / "in.jpg", tmp_path / "mid.avif")
    content = (tmp_path / "mid.avif").read_bytes()
    upright = with_orientation(block, 1).removeprefix(b"Exif\0\0")
    assert content.count(upright) == 1
    (tmp_path / "mid.avif").write_bytes(content.replace(upright, block.removeprefix(b"Exif\0\0")))
    out = tmp_path / f"out{FORMATS[name][0]}"
    photo = copy(tmp_path / "mid.avif", out)
    assert photo.orientation == 1
    assert upright in out.read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_an_orientation_of_four_bytes_is_kept(tmp_path, order, name):
    entry = struct.pack(f"{order}HHII", ORIENTATION, 4, 1, 6)
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    save(tmp_path / "in.jpg", exif=b"Exif\0\0" + head + struct.pack(f"{order}H", 1) + entry + bytes(4))
    out = tmp_path / f"out{FORMATS[name][0]}"
    copy(tmp_path / "in.jpg", out)
    with Image.open(out) as seen:
        assert seen.getexif()[ORIENTATION] == 6


def test_a_thumbnail_in_strips_takes_nothing_else_along():
    """Two strips, whose places lie in a table of their own; the note of the maker lies behind that."""
    tags = {0x0111: (4, 2, 60), 0x0117: (4, 2, 68)}
    first = struct.pack("<HHHIII", 1, MAKER, 2, 6, 76, 14 + 12)
    second = struct.pack("<H", 2) + b"".join(struct.pack("<HHII", tag, *value) for tag, value in tags.items())
    body = (b"II*\0\x08\0\0\0" + first + second).ljust(60, b"\0") + struct.pack("<4I", 90, 94, 4, 4) + b"MAKER\0"
    assert b"MAKER\0" in without_thumbnail(b"Exif\0\0" + body.ljust(98, b"\1"))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({0x011A: 72.0, 0x011B: 72.0, 0x0128: 1}, None),  # without a unit
        ({0x011A: 300.0, 0x011B: 300.0, 0x0128: 1}, None),
        ({0x011A: 72.0, 0x011B: 72.0, 0x0128: 2}, (72, 72)),
        ({0x011A: 72.0, 0x011B: 72.0}, (72, 72)),  # inches, unless something else is told
    ],
)
@pytest.mark.parametrize("target", ["jpeg", "png", "tiff"])
def test_a_resolution_without_a_unit_is_none(tmp_path, target, tags, expected):
    told = exif()
    for tag, value in tags.items():
        told[tag] = value
    Image.new("RGB", (96, 64), "red").save(tmp_path / "in.webp", exif=told)
    out = tmp_path / f"out{FORMATS[target][0]}"
    copy(tmp_path / "in.webp", out)
    assert told_by_the_format(out) == expected


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "bmp"])
@pytest.mark.parametrize("source", ["jpeg", "png"])
def test_a_format_s_own_resolution_counts_more_than_that_of_exif(tmp_path, source, target):
    told = exif()
    told[0x011A], told[0x011B], told[0x0128] = 72.0, 72.0, 2
    name = tmp_path / f"in{FORMATS[source][0]}"
    Image.new("RGB", (96, 64), "red").save(name, dpi=(300, 300), exif=told)
    out = tmp_path / f"out{FORMATS[target][0]}"
    copy(name, out)
    assert told_by_the_format(out) == (300, 300)


def test_a_resolution_that_exif_tells_stays():
    told = exif()
    told[0x011A], told[0x011B], told[0x0128] = 72.0, 72.0, 2
    assert with_density(told.tobytes(), (300 / 25.4, 300 / 25.4)) == told.tobytes()


def test_dots_of_a_jpeg_may_be_counted_in_centimetres(tmp_path):
    save(tmp_path / "in.jpg", dpi=(300, 150))
    content = (tmp_path / "in.jpg").read_bytes()
    place = content.index(b"JFIF\0") + 7
    (tmp_path / "in.jpg").write_bytes(content[:place] + struct.pack(">BHH", 2, 118, 59) + content[place + 5 :])
    copy(tmp_path / "in.jpg", tmp_path / "out.jpg")
    assert told_by_the_format(tmp_path / "out.jpg") == (300, 150)


def test_a_jpeg_tells_the_nearest_resolution_that_it_can():
    assert struct.unpack(">HH", jfif((10_000, 0.01))[12:16]) == (65535, 1)


def test_an_unequal_resolution_turns_with_the_picture(tmp_path):
    for orientation in (3, 5, 6, 8):
        upright = (200, 100) if orientation == 3 else (100, 200)
        save(tmp_path / "in.jpg", exif=exif(orientation), dpi=(200, 100))
        for name, expected in (("out.png", upright), ("out.bmp", upright), ("out.tif", (200, 100))):
            copy(tmp_path / "in.jpg", tmp_path / name)
            assert told_by_the_format(tmp_path / name) == expected
    told = exif(6)
    told[0x011A], told[0x011B], told[0x0128] = 200.0, 100.0, 2
    save(tmp_path / "in.jpg", exif=told)
    for name, expected in (("out.heic", (100, 200)), ("out.png", (100, 200)), ("out.webp", (200, 100))):
        copy(tmp_path / "in.jpg", tmp_path / name)
        with Image.open(tmp_path / name) as seen:
            assert (seen.getexif()[0x011A], seen.getexif()[0x011B]) == expected


def told_by_the_format(path):
    """Dots per inch as libvips has them of a file without EXIF; None where there are none."""
    content = path.read_bytes()
    if path.suffix == ".png":
        place = content.index(b"pHYs") + 4
        across, down, unit = struct.unpack(">IIB", content[place : place + 9])
        return (round(across * 0.0254), round(down * 0.0254)) if unit == 1 else None
    if path.suffix == ".jpg":
        told = read_application(path, 0, b"JFIF\0")
        return struct.unpack(">HH", told[0][3:7]) if told and told[0][2] == 1 else None
    return dpi_of(path)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif"])
def test_a_damaged_block_of_exif_is_no_matter(tmp_path, name):
    save(tmp_path / "in.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xffrest")
    copy(tmp_path / "in.jpg", tmp_path / f"out{FORMATS[name][0]}")
    assert b"MM\0*\0\0\xff\xffrest" in (tmp_path / f"out{FORMATS[name][0]}").read_bytes()


def test_frames_have_one_block_of_exif(tmp_path):
    frames = [Image.new("RGB", (40, 24), colour) for colour in ("red", "blue")]
    for name in ("a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], exif=tags_of_a_camera())
        copy(tmp_path / name, tmp_path / f"out-{name}")
        assert (tmp_path / f"out-{name}").read_bytes().count(tags_of_a_camera()[6:]) == 1
        with Image.open(tmp_path / f"out-{name}") as seen:
            assert seen.n_frames == 2
            assert seen.getexif()[RATING] == 4


def test_exif_that_is_too_long_for_a_jpeg_is_named(tmp_path):
    tags = exif()
    tags[0x8769] = {0x927C: b"note" * 20_000}
    Image.new("RGB", (96, 64), "red").save(tmp_path / "in.png", exif=tags)
    [said] = copy(tmp_path / "in.png", tmp_path / "out.jpg").warnings
    assert re.fullmatch(r"EXIF of 80\d\d\d bytes is not kept, jpeg has 65527 for it", said)
    assert copy(tmp_path / "in.png", tmp_path / "out.webp").warnings == ()


@pytest.mark.parametrize("too_many", [0, 2])  # Pillow pads blocks to an even number of bytes
def test_a_jpeg_is_filled_to_the_last_byte(tmp_path, too_many):
    tags = exif()
    tags[0x8769] = {0x927C: b"n" * 60_000}
    tags[0x8769] = {0x927C: b"n" * (60_000 + 65_532 - len(tags.tobytes()) + too_many)}
    content = tags.tobytes()
    assert len(content) == 65_532 + too_many
    Image.new("RGB", (96, 64), "red").save(tmp_path / "in.webp", exif=tags)
    photo = copy(tmp_path / "in.webp", tmp_path / "out.jpg")
    assert len(photo.warnings) == too_many // 2
    assert (content[6:] in (tmp_path / "out.jpg").read_bytes()) != bool(too_many)


def test_long_exif_of_a_turned_picture_leaves_it_upright(tmp_path):
    tags = exif(6)
    tags[0x8769] = {0x927C: b"note" * 20_000}
    Image.new("RGB", (96, 64), "red").save(tmp_path / "in.webp", exif=tags)
    copy(tmp_path / "in.webp", tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as seen:
        assert dict(seen.getexif()) == {ORIENTATION: 6}


def test_the_block_of_a_webp_is_found_behind_chunks_of_odd_length(tmp_path):
    def chunk(kind, content):
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    path, first, last = tmp_path / "a.webp", chunk(b"ICCP", b"odd"), chunk(b"XMP ", b"<x/>.")
    for new in (b"new", b"even"):
        body = b"WEBP" + first + chunk(b"EXIF", b"old block") + last
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
        replace_chunk(path, b"EXIF", new)
        body = b"WEBP" + first + chunk(b"EXIF", new) + last
        assert path.read_bytes() == b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("name", ["webp", "avif", "heic"])
def test_print_resolution_joins_what_exif_tells(tmp_path, name):
    save(tmp_path / "in.jpg", exif=tags_of_a_camera(), dpi=(240, 240))
    target = tmp_path / f"out{FORMATS[name][0]}"
    copy(tmp_path / "in.jpg", target)
    assert dpi_of(target) == (240, 240)
    with Image.open(target) as seen:
        assert seen.getexif().get_ifd(0x8769)[0xFDE8] == "a tag of tomorrow"
        assert seen.getexif()[RATING] == 4


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_is_added_without_moving_anything(order):
    tags = Image.Exif()
    tags.endian = order
    tags[MAKER], tags[RATING] = "A Maker", 5
    block = tags.tobytes()
    turned = with_orientation(block, 8)
    assert turned[14 : len(block)] == block[14:]
    seen = Image.Exif()
    seen.load(turned)
    assert dict(seen) == {MAKER: "A Maker", ORIENTATION: 8, RATING: 5}
    bare = turned.removeprefix(b"Exif\0\0")
    (table,) = struct.unpack_from(f"{order}I", bare, 4)
    assert struct.unpack_from(f"{order}H" + "H10x" * 3, bare, table) == (3, MAKER, ORIENTATION, RATING)
    assert len(with_orientation(turned, 3)) == len(turned)
    seen.load(with_orientation(turned, 3))
    assert seen[ORIENTATION] == 3
    assert with_orientation(block, 1) == block
    seen.load(with_orientation(b"damaged", 6))
    assert dict(seen) == {ORIENTATION: 6}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("is_short", [True, False])
def test_no_byte_of_a_thumbnail_stays(order, is_last, is_short):
    first = struct.pack(f"{order}HHHIHHI", 1, RATING, 3, 1, 4, 0, 26)
    place, length = ((3, 1, value << 16 * (order == ">")) if is_short else (4, 1, value) for value in (56, 9))
    second = struct.pack(f"{order}HHHIIHHIII", 2, 0x0201, *place, 0x0202, *length, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    block = b"Exif\0\0" + head + first + second + b"thumbnail" + (b"" if is_last else b"more")
    bare = without_thumbnail(block)
    assert b"thumb" not in bare
    assert len(bare) == len(block) - (9 if is_last else 0)
    seen = Image.Exif()
    seen.load(bare)
    assert dict(seen) == {RATING: 4}
    assert seen.get_ifd(1) == {}


def test_the_command_keeps_it_all(tmp_path, enhancer):
    save(
        tmp_path / "in.jpg", photoshop((0x0404, b"", RECORDS)), exif=tags_of_a_camera(), dpi=(300, 300), comment=b"said"
    )
    [outcome] = enhance_files([tmp_path / "in.jpg"], tmp_path / "out", enhancer).of("done")
    assert outcome.warnings == ()
    with Image.open(outcome.job.target) as seen:
        assert (seen.info["dpi"], seen.info["comment"], seen.info["exif"]) == ((300, 300), b"said", tags_of_a_camera())
        assert IptcImagePlugin.getiptcinfo(seen)[2, 120] == b"Hello"
        assert seen.info["jfif"]


def tables_in_a_circle(start, sub):
    """A first table, and perhaps one of EXIF behind it, whose link to the next leads back to itself."""
    orientation = struct.pack("<HHII", ORIENTATION, 3, 1, 1)
    if not sub:
        return start + struct.pack("<H", 1) + orientation + struct.pack("<I", 8)
    first = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    return start + first + struct.pack("<H", 1) + orientation + struct.pack("<I", 26)


@pytest.mark.parametrize("sub", [False, True])
@pytest.mark.parametrize("target", ["jpeg", "tiff", "bmp"])
def test_tables_that_link_in_a_circle_come_to_an_end(tmp_path, sub, target):
    block = tables_in_a_circle(b"Exif\0\0II*\0\x08\0\0\0", sub)
    save(tmp_path / "in.jpg", application(1, block))
    copy(tmp_path / "in.jpg", tmp_path / f"out{FORMATS[target][0]}")
    assert density_of(block) is None
    (tmp_path / "tables.tif").write_bytes(block[6:])
    assert exif_of_tiff(tmp_path / "tables.tif") is None


def test_no_page_of_a_tiff_tells_a_resolution_that_nobody_told(tmp_path):
    pages = [Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as seen:
        for number in range(2):
            seen.seek(number)
            assert seen.tag_v2[296] == 1
