"""What AVIF, HEIC, JPEG and WebP files say of their quantiser, and when they are believed."""

from __future__ import annotations

import io
import threading

import av.logging
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from heic_grid import write_grid
from subjectiveqe.codecs.bitstream import Headers
from subjectiveqe.codecs.coarseness import coarseness, of_family, vp8_step
from subjectiveqe.codecs.file_header import file_coarseness
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.enhancing.look import Look, with_file
from subjectiveqe.images import read_rgb
from subjectiveqe.metrics import psnr


def save_heic(path, image, quality, chroma="420", **options):
    pillow_heif.from_pillow(Image.fromarray(image)).save(path, quality=quality, chroma=chroma, **options)
    return path


def save_pillow(path, image, quality, **options):
    Image.fromarray(image).save(path, quality=quality, **options)
    return path


@pytest.mark.parametrize("tune", ["iq", "ssim"])
@pytest.mark.parametrize("quality", [10, 30, 50, 70, 90])
def test_a_file_tells_the_quality_it_was_made_at(tmp_path, draw_image, quality, tune):
    path = save_pillow(tmp_path / "a.avif", draw_image((64, 80)), quality, advanced={"tune": tune})
    assert file_coarseness(path) == pytest.approx(coarseness("avif", quality), abs=0.01)


@pytest.mark.parametrize(("quality", "qp"), [(10, 42), (30, 32), (50, 22), (70, 12)])
def test_a_heic_file_tells_its_qp(tmp_path, draw_image, quality, qp):
    """Three less than the rate factor of (100 - quality) / 2 that libheif asks x265 for."""
    path = save_heic(tmp_path / "a.heic", draw_image((64, 80)), quality)
    assert file_coarseness(path) == pytest.approx(coarseness("hevc", qp, chroma="420"), abs=1e-6)
    assert file_coarseness(path, 2) == pytest.approx(coarseness("hevc", qp, 2), abs=1e-6)


def test_a_heic_file_tells_its_chroma(tmp_path, draw_image):
    image = np.dstack((draw_image((256, 320)), np.full((256, 320), 128, np.uint8)))
    path = save_heic(tmp_path / "a.heic", image, 30, chroma="444", thumbnails=[64])
    assert file_coarseness(path) == pytest.approx(coarseness("hevc", 32, chroma="444"), abs=1e-6)


def test_the_largest_of_a_heic_files_pictures_is_asked(tmp_path, draw_image):
    """A small gray one comes first here, as a thumbnail may; it has no chroma."""
    several = pillow_heif.from_pillow(Image.fromarray(draw_image((64, 64))).convert("L"))
    several.add_from_pillow(Image.fromarray(draw_image((256, 320))))
    several.save(tmp_path / "a.heic", quality=30, chroma=420, primary_index=1)
    assert file_coarseness(tmp_path / "a.heic") == pytest.approx(coarseness("hevc", 32, chroma="420"), abs=1e-6)


def test_a_picture_in_tiles_tells_their_mean(tmp_path, draw_image):
    """As phones write them, with a thumbnail that is larger than a tile."""
    image, small = draw_image((128, 192)), draw_image((80, 96))
    path = write_grid(tmp_path / "a.heic", image, 2, 3, [20, 22, 24, 26, 28, 36], thumbnail=(small, 45))
    assert file_coarseness(path) == pytest.approx(coarseness("hevc", 26, chroma="420"), abs=1e-6)
    assert psnr(read_rgb(path), image) > 30


def test_alpha_and_another_name_do_not_hide_the_quantiser(tmp_path, draw_image):
    path = tmp_path / "at 100%d: größe.bin"
    image = Image.fromarray(draw_image((64, 80)))
    image.putalpha(128)
    image.save(path, "avif", quality=30)
    assert file_coarseness(path) == pytest.approx(coarseness("avif", 30), abs=0.01)


def test_threads_do_not_take_each_others_words(tmp_path, draw_image):
    paths = [save_pillow(tmp_path / f"{q}.avif", draw_image((64, 80)), q) for q in (10, 30, 50, 70)]
    expected, told = [file_coarseness(path) for path in paths], {}

    def read(place):
        told[place] = [file_coarseness(paths[place]) for _ in range(20)]

    threads = [threading.Thread(target=read, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(told[place] == [expected[place]] * 20 for place in range(4))


def test_ffmpeg_says_no_more_than_before(tmp_path, draw_image):
    level = av.logging.get_level()
    (tmp_path / "text.heic").write_text("no picture")
    for path in (save_pillow(tmp_path / "a.avif", draw_image((64, 80)), 30), tmp_path / "text.heic"):
        file_coarseness(path)
        assert av.logging.get_level() == level


def test_other_files_and_damaged_ones_say_nothing(tmp_path, draw_image):
    path = save_pillow(tmp_path / "a.avif", draw_image((64, 80)), 30)
    assert file_coarseness(path, 3) is None  # to a network that is told of three families, AVIF is none of them
    assert file_coarseness(save_pillow(tmp_path / "whole.jpg", draw_image((64, 80)), 50), 1) is None
    (tmp_path / "cut.avif").write_bytes(path.read_bytes()[:200])
    Image.fromarray(draw_image((64, 80))).save(tmp_path / "a.png")
    Image.fromarray(draw_image((64, 80))).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:30])
    (tmp_path / "empty").touch()
    for name in ("cut.avif", "cut.jpg", "a.png", "empty", "missing"):
        assert file_coarseness(tmp_path / name) is None


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_a_jpeg_file_tells_its_quality(tmp_path, draw_image, quality, mode):
    image = Image.fromarray(draw_image((64, 80))).convert(mode)
    image.save(tmp_path / "a.bin", "JPEG", quality=quality, progressive=quality > 50)
    assert file_coarseness(tmp_path / "a.bin") == pytest.approx(coarseness("jpeg", quality))


def test_tables_of_others_tell_the_quality_of_the_nearest_ones(tmp_path, draw_image):
    """By the steps of the first two frequencies down and across; the others differ as much as they like."""
    image, path = Image.fromarray(draw_image((64, 80))), tmp_path / "a.jpg"
    image.save(path, quality=30)
    with Image.open(path) as saved:
        [standard, chroma] = saved.quantization.values()
    told = coarseness("jpeg", 30)
    steeper = [step if min(divmod(place, 8)) < 2 else 1 for place, step in enumerate(standard)]
    flatter = [step + (1 if place == 1 else -1 if place == 8 else 0) for place, step in enumerate(standard)]
    for tables in ([steeper, chroma], [flatter, flatter], [standard, standard]):
        image.save(path, qtables=tables)
        assert file_coarseness(path) == pytest.approx(told)
    image.save(path, qtables=[[1] * 64, [1] * 64])
    assert file_coarseness(path) == pytest.approx(coarseness("jpeg", 100))


@pytest.mark.parametrize(("preset", "low", "high"), [("web_low", 30, 42), ("web_high", 80, 90), ("maximum", 92, 98)])
def test_photoshop_s_tables_tell_of_a_likely_quality(tmp_path, draw_image, preset, low, high):
    Image.fromarray(draw_image((64, 80))).save(tmp_path / "a.jpg", quality=preset)
    assert coarseness("jpeg", high)[1] < file_coarseness(tmp_path / "a.jpg")[1] < coarseness("jpeg", low)[1]


def test_wide_and_cut_tables_tell_nothing(tmp_path):
    start, wide = b"\xff\xd8\xff\xdb", bytes([0x10]) + bytes([0, 16] * 64)
    for content in (wide, bytes([0]) + bytes([16] * 30), b""):
        (tmp_path / "a.jpg").write_bytes(start + (len(content) + 2).to_bytes(2, "big") + content + b"\xff\xda")
        assert file_coarseness(tmp_path / "a.jpg") is None


def test_a_jpeg_is_believed_unless_it_was_one_before():
    said = coarseness("jpeg", 75)
    for estimate, believed in (
        ((0.3, 0.0, 0.2, 0.1, 0), True),  # as text is taken
        ((0, 0.65, 0, 0, 0), True),
        ((0, 0.7, 0, 0, 0), False),  # at quality 50 before
        ((0.7, 0.3, 0, 0, 0), False),
    ):
        look = Look(np.array(estimate, np.float32))
        assert (with_file(look, said) is not look) == believed


def test_a_file_is_believed_unless_the_picture_shows_more():
    said = coarseness("avif", 50)

    def kept(*estimate):
        look = Look(np.array(estimate, np.float32), (3, 5))
        return with_file(look, said) is look

    finer = with_file(Look(np.array((0, 0.05, 0, 0.2, 0.05), np.float32), (3, 5)), said)
    assert finer.coarseness == pytest.approx(said)
    assert finer.grid == (3, 5)
    assert not kept(0, 0, 0, 0.77, 0)  # by a fast encoder
    assert kept(0, 0, 0, 0.85, 0)  # saved again, more finely
    assert kept(0, 0.5, 0, 0.1, 0)  # a JPEG before
    assert not kept(0, 0.3, 0, 0.5, 0)  # in 10 bits
    assert not kept(0.4, 0, 0, 0, 0.5)  # text
    assert with_file(Look(None), said) == Look(None)
    assert with_file(finer, None) is finer
    assert with_file(Look(np.zeros(2, np.float32)), said).coarseness.tolist() == [0, 0]


@pytest.mark.parametrize("quality", [1, 20, 50, 75, 90, 100])
def test_a_webp_file_tells_its_quality(tmp_path, sample_paths, quality):
    """Whatever else is in it: profile, alpha, frames."""
    photo = Image.fromarray(read_rgb(sample_paths["coffee"])[:192, :256])
    photo.save(tmp_path / "a.webp", quality=quality)
    photo.convert("RGBA").save(tmp_path / "alpha.webp", quality=quality, icc_profile=b"\1" * 129)
    photo.save(tmp_path / "film.webp", quality=quality, save_all=True, append_images=[photo.rotate(3)])
    photo.save(tmp_path / "one.webp", quality=quality, method=0)
    expected = pytest.approx(coarseness("webp", quality), abs=0.02)
    assert [file_coarseness(path) for path in sorted(tmp_path.iterdir())] == [expected] * 4


def test_webp_without_loss_or_cut_says_nothing(tmp_path, draw_image):
    photo = Image.fromarray(draw_image((64, 80)))
    photo.save(tmp_path / "a.webp", lossless=True)
    photo.save(tmp_path / "whole.webp", quality=50)
    data = (tmp_path / "whole.webp").read_bytes()
    assert file_coarseness(tmp_path / "whole.webp", 2) is None  # to a network that is told of two families
    (tmp_path / "whole.webp").unlink()
    for length in (12, 15, 20, 24, 40, len(data) - 5):
        (tmp_path / f"cut{length}.webp").write_bytes(data[:length])
    for length in (11, 14, 30):  # of the frame
        (tmp_path / f"short{length}.webp").write_bytes(
            data[:16] + length.to_bytes(4, "little") + data[20 : 20 + length]
        )
    noise = bytes(np.random.default_rng(0).integers(256, size=len(data) - 26, dtype=np.uint8))
    (tmp_path / "noise.webp").write_bytes(data[:20] + noise[:3] + bytes(3) + noise[3:])
    assert {file_coarseness(path) for path in tmp_path.iterdir()} == {None}


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ([("base_qindex", 40)], 40),
        # A quantiser of 0 is not written, nor a probability of 255.
        ([("segment_feature_mode", 1), ("segment_qp[3]", 60), ("base_qindex", 0), ("segment_probs[0]", 0)], 0),
        ([("segment_feature_mode", 1), ("segment_qp[0]", 20), ("base_qindex", 20)], 20),
        ([("segment_feature_mode", 0), ("segment_qp[0]", -5), ("base_qindex", 20)], 15),
    ],
)
def test_what_a_webp_does_not_write_has_a_value(tmp_path, draw_image, monkeypatch, said, index):
    path = save_pillow(tmp_path / "a.webp", draw_image((64, 80)), 50)
    monkeypatch.setattr(Headers, "of_packet", lambda *_: said)
    assert file_coarseness(path) == pytest.approx(of_family("webp", vp8_step(index)), abs=1e-6)


@pytest.mark.parametrize(("name", "quality"), [("a.jpg", 10), ("a.webp", 20)])
def test_drawings_of_few_colours_stay_that(tmp_path, name, quality):
    """Whatever their files say of the quantiser that they came through unharmed."""
    cells = np.random.default_rng(0).integers(2, size=(12, 16), dtype=np.uint8) * 255
    drawing = np.repeat(np.kron(cells, np.ones((16, 16), np.uint8))[..., None], 3, axis=2)
    source = save_pillow(tmp_path / name, drawing, quality)
    enhancer, before = Enhancer("fast", "onnxruntime"), read_rgb(source)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) <= 16
    enhance_files([source], tmp_path / "a.png", enhancer)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), enhancer(before))


def test_a_webp_is_believed_where_it_says_more_than_is_seen():
    said = coarseness("webp", 50)
    for estimate, believed in (
        ((0, 0, 0.5, 0, 0), True),
        ((0.3, 0, 0.1, 0.2, 0.1), True),  # as text is taken
        ((0, 0, 0.7, 0, 0), False),  # it may have been saved before
        ((0, 0.3, 0.1, 0, 0), False),  # a JPEG before
    ):
        look = Look(np.array(estimate, np.float32))
        assert (with_file(look, said) is not look) == believed


def test_fine_heic_is_believed_though_it_is_taken_for_avif():
    said = coarseness("hevc", 22, chroma="420")
    for estimate, believed in (((0.0, 0, 0, 0.6, 0), True), ((0.0, 0, 0, 0.7, 0), False), ((0, 0.2, 0, 0.5, 0), False)):
        look = Look(np.array(estimate, np.float32))
        assert (with_file(look, said) is not look) == believed


@pytest.mark.parametrize(
    ("save", "name", "said"),
    [
        (save_pillow, "a.avif", coarseness("avif", 50)),
        (save_heic, "a.heic", coarseness("hevc", 22, chroma="420")),
        (save_pillow, "a.jpg", coarseness("jpeg", 50)),
    ],
)
def test_files_are_enhanced_as_they_say(tmp_path, sample_paths, save, name, said):
    """The bundled network estimates otherwise, and told of it does something else."""
    enhancer = Enhancer("fast", "onnxruntime")
    source = save(tmp_path / name, read_rgb(sample_paths["coffee"]), 50)
    enhance_files([source], tmp_path / "a.png", enhancer)
    before = read_rgb(source)
    estimated = enhancer.look(before)
    told = with_file(estimated, said)
    assert told is not estimated
    assert np.array_equal(read_rgb(tmp_path / "a.png"), enhancer.with_look(before, told))
    assert not np.array_equal(read_rgb(tmp_path / "a.png"), enhancer.with_look(before, estimated))


def test_what_is_assumed_counts_more_than_what_the_file_says(tmp_path, sample_paths):
    source = save_pillow(tmp_path / "a.jpg", read_rgb(sample_paths["coffee"]), 50)
    outs = {}
    for assume, taken_for in ((None, "jpeg:50"), ("jpeg:80", "jpeg:80"), ("avif:2", "avif:2")):
        enhancer = Enhancer("fast", "onnxruntime", assume=assume)
        [outcome] = enhance_files([source], tmp_path / "a.png", enhancer, existing="overwrite").outcomes
        assert outcome.as_dict()["taken_for"] == taken_for
        outs[assume] = read_rgb(tmp_path / "a.png")
        assert assume is None or np.array_equal(outs[assume], enhancer(read_rgb(source)))
    assert not np.array_equal(outs[None], outs["jpeg:80"])
    assert not np.array_equal(outs["avif:2"], outs["jpeg:80"])


def test_a_jpeg_saved_as_avif_is_enhanced_as_it_looks(tmp_path, sample_paths):
    photo = read_rgb(sample_paths["astronaut"])[:192, :192]
    enhancer = Enhancer("fast", "onnxruntime")
    jpeg = io.BytesIO()
    Image.fromarray(photo).save(jpeg, "JPEG", quality=20)
    source = save_pillow(tmp_path / "a.avif", np.array(Image.open(jpeg)), 80)
    enhance_files([source], tmp_path / "a.png", enhancer)
    before = read_rgb(source)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), enhancer(before))
