"""Codecs: level in, decoded picture and exact byte count out; errors that name codec, range and remedy."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from subjectiveqe.codecs import CODECS, crop_to_multiple, get_codec, hevc
from subjectiveqe.codecs.hevc import decode_planes
from subjectiveqe.codecs.hm import hm_arguments
from subjectiveqe.codecs.still import Jpeg
from subjectiveqe.errors import CodecError, ConfigError, ShapeError
from subjectiveqe.images import read_rgb
from subjectiveqe.metrics import psnr, psnr_y
from subjectiveqe.samples import samples

IN_MEMORY = [
    ("hevc", {"chroma": "444"}),
    ("hevc", {"chroma": "420"}),
    ("jpeg", {"chroma": "444"}),
    ("jpeg", {"chroma": "422"}),
    ("jpeg", {"chroma": "420"}),
    ("webp", {}),
    ("avif", {"chroma": "444"}),
    ("avif", {"chroma": "422"}),
    ("avif", {"chroma": "420"}),
    ("resaved", {"last": "jpeg"}),
    ("resaved", {"last": "webp"}),
]


@pytest.fixture(scope="module")
def picture(draw_image):
    return draw_image((64, 96))


# ---------------------------------------------------------------- all codecs in memory


@pytest.mark.parametrize(("name", "options"), IN_MEMORY)
def test_round_trip_with_the_exact_byte_count(picture, name, options):
    codec = get_codec(name, **options)
    data = codec.encode(picture, 30)
    coded = codec.code(picture, 30)
    assert coded.num_bytes == len(data)
    assert coded.bpp == pytest.approx(8 * len(data) / (64 * 96))
    assert coded.rgb.shape == picture.shape
    assert coded.rgb.dtype == np.uint8
    assert np.array_equal(coded.rgb, codec.decode(data))
    assert psnr(coded.rgb, picture) > 24


@pytest.mark.parametrize(("name", "options"), IN_MEMORY)
def test_same_bits_every_time_and_through_a_pickle(picture, name, options):
    codec = get_codec(name, **options)
    again = pickle.loads(pickle.dumps(codec))
    assert again == codec
    assert again.encode(picture, 40) == codec.encode(picture, 40)


@pytest.mark.parametrize(("name", "options"), IN_MEMORY)
def test_level_moves_size_and_quality(picture, name, options):
    codec = get_codec(name, **options)
    low, high = codec.level_range
    coarse, fine = (low + 10, high - 10) if codec.level_name == "qf" else (high - 10, low + 10)
    small, large = codec.code(picture, coarse), codec.code(picture, fine)
    assert small.num_bytes < large.num_bytes
    assert psnr(small.rgb, picture) < psnr(large.rgb, picture)


@pytest.mark.parametrize(("name", "options"), IN_MEMORY)
def test_both_ends_of_the_range_work_and_beyond_is_refused(picture, name, options):
    codec = get_codec(name, **options)
    low, high = codec.level_range
    for level in (low, high):
        assert codec.code(picture, level).rgb.shape == picture.shape
    for level in (low - 1, high + 1):
        with pytest.raises(CodecError, match=rf"^{name}: {codec.level_name} must be {low}\.\.{high}, got {level}$"):
            codec.code(picture, level)


def test_ranges_are_those_of_the_standards():
    assert {name: (kind.level_name, kind.level_range) for name, kind in CODECS.items()} == {
        "hevc": ("qp", (0, 51)),
        "hm": ("qp", (0, 51)),
        "jpeg": ("qf", (1, 100)),
        "webp": ("qf", (1, 100)),
        "avif": ("qf", (1, 100)),
        "resaved": ("qf", (1, 100)),
    }


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 16)])
def test_still_codecs_take_any_size(draw_image, name, size):
    assert get_codec(name).code(draw_image(size), 80).rgb.shape == (*size, 3)


def test_a_resaved_picture_was_a_jpeg_of_another_phase_and_often_larger(draw_image, monkeypatch):
    code, sides, levels = Jpeg.code, [], []

    def watch(self, rgb, level):
        sides.append(rgb.shape[:2])
        levels.append(level)
        return code(self, rgb, level)

    monkeypatch.setattr(Jpeg, "code", watch)
    for seed in range(60):
        get_codec("resaved").code(draw_image((32, 32), seed), 50)
    scaled = [height for height, _ in sides if height >= 40]
    assert 15 < len(scaled) < 45
    assert 56 < max(scaled) <= 64 + 7
    plain = [side for side in sides if side[0] < 40]
    for axis in (0, 1):
        assert {side[axis] - 32 for side in plain} >= {0, 7}
    assert len({height - width for height, width in sides}) > 5
    assert 20 <= min(levels) < 35 < 75 < max(levels) <= 90


@pytest.mark.parametrize("name", ["hevc", "jpeg", "avif"])
def test_half_chroma_cannot_hold_fine_colour(name):
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:, ::2] = (255, 0, 0)  # columns of one pixel
    colours[:, 1::2] = (0, 0, 255)
    level = {"hevc": 10}.get(name, 95)
    full, half = (get_codec(name, chroma=chroma).code(colours, level) for chroma in ("444", "420"))
    assert psnr(half.rgb, colours) < psnr(full.rgb, colours) - 6


def test_halved_chroma_is_the_mean_and_halves_go_up():
    plane = np.array([[0, 1, 9, 9, 255, 255], [0, 1, 8, 8, 255, 255]], np.uint8)
    assert hevc._halve(plane).tolist() == [[1, 9, 255]]


@pytest.mark.parametrize("name", ["hevc", "jpeg", "avif"])
def test_half_chroma_costs_fewer_bytes(picture, name):
    level = {"hevc": 10}.get(name, 95)
    full, half = (get_codec(name, chroma=chroma).code(picture, level) for chroma in ("444", "420"))
    assert half.num_bytes < full.num_bytes


@pytest.mark.parametrize("name", ["hevc", "jpeg", "webp", "avif"])
def test_damaged_data_is_one_error(name):
    with pytest.raises(CodecError, match=f"^{name}: .*24 bytes"):
        get_codec(name).decode(b"this is no picture, none")


def test_a_picture_that_libavif_refuses_is_one_error(picture):
    with pytest.raises(CodecError, match=r"^avif: Pillow cannot encode 66000x16 px"):
        get_codec("avif").code(np.zeros((16, 66000, 3), np.uint8), 50)
    data = get_codec("avif").encode(picture, 50)
    for place in range(0, 400, 3):
        with contextlib.suppress(CodecError):
            get_codec("avif").decode(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])


def test_a_level_between_two_is_refused(picture):
    for name in ("hevc", "jpeg", "resaved"):
        with pytest.raises(CodecError, match=r"must be a whole number, got 37\.5"):
            get_codec(name).code(picture, 37.5)


@pytest.mark.parametrize("name", ["hevc", "jpeg"])
@pytest.mark.parametrize("wrong", [np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3)), np.zeros((0, 16, 3), np.uint8)])
def test_what_is_no_picture_is_refused(name, wrong):
    with pytest.raises(ShapeError, match=f"^{name}: uint8 picture"):
        get_codec(name).code(wrong, 30)


# ---------------------------------------------------------------- choosing one


def test_unknown_codec_names_the_nearest():
    with pytest.raises(ConfigError, match='unknown codec "hvec"; did you mean "hevc"'):
        get_codec("hvec")
    with pytest.raises(ConfigError, match="known: hevc, hm, jpeg, webp, avif"):
        get_codec("vvc-of-tomorrow")


def test_options_are_checked():
    with pytest.raises(ConfigError, match='codec "webp" has no option "chroma"; it has none'):
        get_codec("webp", chroma="444")
    with pytest.raises(ConfigError, match='codec "hevc": chroma must be one of 444, 420, got "422"'):
        get_codec("hevc", chroma="422")
    with pytest.raises(ConfigError, match='codec "jpeg": chroma must be one of 444, 422, 420, got "4:4:4"'):
        get_codec("jpeg", chroma="4:4:4")


def test_none_stands_for_the_default():
    assert get_codec("hevc", chroma=None, encoder=None) == get_codec("hevc")


def test_neither_encoder_library_is_loaded_before_it_is_needed():
    code = "import sys, subjectiveqe.codecs as c; c.get_codec('hevc'); print({'av', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_crop_to_multiple():
    rgb = np.zeros((17, 31, 3), np.uint8)
    assert crop_to_multiple(rgb, 8).shape == (16, 24, 3)
    with pytest.raises(ShapeError, match="at least 8x8 px expected, got 31x7"):
        crop_to_multiple(rgb[:7], 8)


# ---------------------------------------------------------------- hevc

# Recorded with libx265 4.2 of PyAV 18.1; other builds may decide a few blocks otherwise.
RECORDED = [
    ("astronaut", 27, 22064, 40.044),
    ("astronaut", 37, 7383, 33.276),
    ("coffee", 27, 26274, 38.703),
    ("coffee", 37, 6142, 31.611),
]


@pytest.mark.parametrize(("name", "qp", "num_bytes", "psnr_y_db"), RECORDED)
def test_hevc_gives_the_recorded_figures(sample_paths, name, qp, num_bytes, psnr_y_db):
    gt = crop_to_multiple(read_rgb(sample_paths[name]))
    coded = get_codec("hevc").code(gt, qp)
    assert coded.num_bytes == pytest.approx(num_bytes, rel=0.005)
    assert psnr_y(coded.rgb, gt) == pytest.approx(psnr_y_db, abs=0.02)


def test_hevc_bitstream_is_one_intra_picture_and_its_parameter_sets(picture):
    data = get_codec("hevc").encode(picture, 37)
    units = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    kinds = [unit[0] >> 1 & 63 for unit in units]
    assert kinds[:-1] == [32, 33, 34]  # VPS, SPS, PPS; no text about the encoder
    assert kinds[-1] in (19, 20)  # IDR


@pytest.mark.parametrize(("chroma", "rows"), [("444", 64), ("420", 32)])
def test_hevc_codes_the_chroma_asked_for(picture, chroma, rows):
    y, cb, cr = decode_planes(get_codec("hevc", chroma=chroma).encode(picture, 37))
    assert y.shape == (64, 96)
    assert cb.shape == cr.shape == (rows, 96 * rows // 64)


@pytest.mark.parametrize("chroma", ["444", "420"])
def test_hevc_keeps_flat_colours_in_place(chroma):
    flat = np.full((32, 32, 3), (200, 60, 120), np.uint8)
    assert np.abs(get_codec("hevc", chroma=chroma).code(flat, 10).rgb.astype(int) - flat).max() <= 3


@pytest.mark.parametrize("name", ["hevc", "hm"])
def test_hevc_wants_multiples_of_8(draw_image, name):
    codec = get_codec(name)
    with pytest.raises(ShapeError, match=rf"^{name}: .*multiples of 8 px expected, got 31x24; crop with"):
        codec.code(draw_image((24, 31)), 37)


def test_hevc_says_when_a_picture_is_too_small():
    with pytest.raises(CodecError, match=r"^hevc: libx265 cannot encode 64x8 px .*16 px$"):
        get_codec("hevc").code(np.zeros((8, 64, 3), np.uint8), 37)


def test_hevc_without_libx265_says_so(picture, monkeypatch):
    import av

    class Without:
        @staticmethod
        def create(name: str, _mode: str) -> None:
            raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av, "CodecContext", Without)
    with pytest.raises(CodecError, match=r"^hevc: this PyAV was built without libx265"):
        get_codec("hevc").code(picture, 37)


def test_pillow_without_avif_says_so(picture, monkeypatch):
    from PIL import Image

    Image.init()
    monkeypatch.delitem(Image.SAVE, "AVIF")
    with pytest.raises(CodecError, match=r"^avif: Pillow cannot encode .*PIL.features"):
        get_codec("avif").code(picture, 50)


def test_hevc_writes_nothing_to_the_terminal(picture, capfd):
    get_codec("hevc").code(picture, 37)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- hm, with a small program in its place

FAKE_HM = """#!{python}
import sys, time
from pathlib import Path

words = sys.argv[1:]
print("HM software: Encoder Version [fake]", flush=True)
short = dict(zip(words[:18:2], words[1:18:2]))
{behaviour}
pixels = Path(short["-i"]).read_bytes()
assert len(pixels) == 3 * int(short["-wdt"]) * int(short["-hgt"])
Path(short["-o"]).write_bytes(pixels)
Path(short["-b"]).write_bytes(bytes(100 + int(short["-q"])))
"""


@pytest.fixture
def make_hm(tmp_path, monkeypatch):
    """Gives `make_hm(behaviour, **options)`: the codec with a stand-in encoder; temporary files go to tmp_path/temp."""
    temp = tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temp))

    def make(behaviour: str = "", **options):
        encoder, config = tmp_path / "TAppEncoderStatic", tmp_path / "intra.cfg"
        encoder.write_text(FAKE_HM.format(python=sys.executable, behaviour=behaviour))
        encoder.chmod(0o755)
        config.write_text("# nothing\n")
        return get_codec("hm", encoder=encoder, config=config, **options)

    yield make
    assert list(temp.iterdir()) == []  # after success and after every failure


def test_hm_gives_the_reconstruction_and_the_bytes(make_hm, picture):
    coded = make_hm().code(picture, 37)
    assert coded.num_bytes == 137
    assert np.abs(coded.rgb.astype(int) - picture).max() <= 2  # only the way to YCbCr and back


def test_hm_arguments_are_those_of_the_reference_figures():
    words = hm_arguments(Path("/hm/encoder_intra_main_rext.cfg"), Path("/t"), 768, 512, 37)
    assert " ".join(words) == (
        "-c /hm/encoder_intra_main_rext.cfg -i /t/in.yuv -b /t/out.bin -o /t/rec.yuv -wdt 768 -hgt 512 "
        "-fr 25 -f 1 -q 37 "
        "--InputChromaFormat=444 --ChromaFormatIDC=444 --InputBitDepth=8 --InternalBitDepth=8 --OutputBitDepth=8 "
        "--SEIDecodedPictureHash=0 --Level=6.2 --ConformanceWindowMode=0"
    )


def test_hm_that_fails_is_quoted(make_hm, picture):
    hm = make_hm('print("Error: Invalid GOP structure given"); sys.exit(1)')
    with pytest.raises(CodecError, match=r"failed with exit code 1: Error: Invalid GOP structure given$"):
        hm.code(picture, 37)


def test_hm_that_fails_in_silence(make_hm, picture):
    encoder = make_hm().encoder
    encoder.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(CodecError, match="failed with exit code 3: it said nothing"):
        get_codec("hm", encoder=encoder, config=encoder).code(picture, 37)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which processes run")
def test_hm_that_hangs_is_stopped_with_its_children(make_hm, picture, tmp_path):
    note = tmp_path / "pids"
    sleeper = f"import os, subprocess; child = subprocess.Popen(['sleep', '60']); open({str(note)!r}, 'w').write("
    hm = make_hm(sleeper + "f'{os.getpid()} {child.pid}'); time.sleep(60)", timeout_s=2.0)
    with pytest.raises(CodecError, match="took longer than 2 s and was stopped; raise timeout_s"):
        hm.code(picture, 37)
    deadline = time.monotonic() + 20
    while any(_runs(int(pid)) for pid in note.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("sys.exit(0)", "the encoder ended well but wrote no out.bin"),
        ("Path(short['-b']).write_bytes(b'x'); sys.exit(0)", "wrote no rec.yuv"),
        (
            "[Path(short[k]).write_bytes(b'xy') for k in ('-b', '-o')]; sys.exit(0)",
            "18432 bytes of reconstruction expected, got 2",
        ),
    ],
)
def test_hm_that_writes_too_little(make_hm, picture, behaviour, message):
    with pytest.raises(CodecError, match=message):
        make_hm(behaviour).code(picture, 37)


def test_hm_is_told_from_another_by_its_files_not_by_where_they_lie(make_hm, tmp_path):
    hm = make_hm()
    (tmp_path / "moved").mkdir()
    moved = [shutil.copy(path, tmp_path / "moved") for path in (hm.encoder, hm.config)]
    assert get_codec("hm", encoder=Path(moved[0]), config=Path(moved[1])).settings() == hm.settings()
    assert make_hm("sys.exit(1)").settings() != get_codec("hm", encoder=Path(moved[0]), config=hm.config).settings()
    before = hm.settings()
    hm.config.write_text("# something\n")
    assert hm.settings() != before


def test_hm_that_is_not_there_or_cannot_run(make_hm, picture):
    hm = make_hm()
    with pytest.raises(CodecError, match=r"^hm: no encoder TAppEncoderStatic at nowhere; build HM"):
        get_codec("hm", encoder=Path("nowhere"), config=hm.config).code(picture, 37)
    with pytest.raises(CodecError, match=r"^hm: no configuration file at nowhere.cfg"):
        get_codec("hm", encoder=hm.encoder, config=Path("nowhere.cfg")).code(picture, 37)
    hm.encoder.chmod(0o644)
    with pytest.raises(CodecError, match=r"cannot be run \((Permission denied|Exec format error)\)"):
        hm.code(picture, 37)


def test_hm_on_a_full_disk(make_hm, picture, monkeypatch):
    hm = make_hm()

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CodecError, match=r"cannot use files in .*No space"):
        hm.code(picture, 37)


# ---------------------------------------------------------------- resaved


def test_a_resaved_picture_has_lost_more_than_its_last_file_tells():
    gt = read_rgb(samples()[0])[:200, :200]
    for last in ("jpeg", "webp"):
        once, twice = get_codec(last).code(gt, 90), get_codec("resaved", last=last).code(gt, 90)
        assert psnr(twice.rgb, gt) < psnr(once.rgb, gt) - 1


def test_what_is_hidden_in_a_resaved_picture_varies_from_picture_to_picture():
    gt = read_rgb(samples()[0])
    parts = [gt[k : k + 96, k : k + 96] for k in range(8)]
    losses = [psnr(get_codec("resaved").code(part, 95).rgb, part) for part in parts]
    assert max(losses) - min(losses) > 2
    with pytest.raises(ConfigError, match='last must be one of jpeg, webp, got "png"'):
        get_codec("resaved", last="png")
