"""What AVIF files say of their quantiser, and when they are believed."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from subjectiveqe.codecs.avif_header import avif_coarseness
from subjectiveqe.codecs.coarseness import coarseness
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_files
from subjectiveqe.enhancing.look import Look, with_file
from subjectiveqe.images import read_rgb


def save_avif(path, image, quality, **options):
    Image.fromarray(image).save(path, quality=quality, **options)
    return path


@pytest.mark.parametrize("tune", ["iq", "ssim"])
@pytest.mark.parametrize("quality", [10, 30, 50, 70, 90])
def test_a_file_tells_the_quality_it_was_made_at(tmp_path, draw_image, quality, tune):
    path = save_avif(tmp_path / "a.avif", draw_image((64, 80)), quality, advanced={"tune": tune})
    assert avif_coarseness(path) == pytest.approx(coarseness("avif", quality), abs=0.01)


def test_alpha_and_another_name_do_not_hide_the_quantiser(tmp_path, draw_image):
    path = tmp_path / "at 100%d: größe.bin"
    image = Image.fromarray(draw_image((64, 80)))
    image.putalpha(128)
    image.save(path, "avif", quality=30)
    assert avif_coarseness(path) == pytest.approx(coarseness("avif", 30), abs=0.01)


def test_threads_do_not_take_each_others_words(tmp_path, draw_image):
    paths = [save_avif(tmp_path / f"{q}.avif", draw_image((64, 80)), q) for q in (10, 30, 50, 70)]
    expected, told = [avif_coarseness(path) for path in paths], {}

    def read(place):
        told[place] = [avif_coarseness(paths[place]) for _ in range(20)]

    threads = [threading.Thread(target=read, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(told[place] == [expected[place]] * 20 for place in range(4))


def test_other_files_and_damaged_ones_say_nothing(tmp_path, draw_image):
    path = save_avif(tmp_path / "a.avif", draw_image((64, 80)), 30)
    (tmp_path / "cut.avif").write_bytes(path.read_bytes()[:200])
    Image.fromarray(draw_image((64, 80))).save(tmp_path / "a.jpg")
    (tmp_path / "empty").touch()
    for name in ("cut.avif", "a.jpg", "empty", "missing"):
        assert avif_coarseness(tmp_path / name) is None


def test_a_file_is_believed_unless_the_picture_shows_more():
    said = coarseness("avif", 50)

    def kept(*estimate):
        look = Look(np.array(estimate, np.float32), (3, 5))
        return with_file(look, said) is look

    finer = with_file(Look(np.array((0, 0.05, 0, 0.2, 0.05), np.float32), (3, 5)), said)
    assert finer.coarseness == pytest.approx(said)
    assert finer.grid == (3, 5)
    assert not kept(0, 0, 0, 0.64, 0)
    assert kept(0, 0, 0, 0.75, 0)  # saved again, more finely
    assert kept(0, 0.5, 0, 0.1, 0)  # a JPEG before
    assert kept(0.2, 0, 0, 0.4, 0)
    assert with_file(Look(None), said) == Look(None)
    assert with_file(finer, None) is finer
    assert with_file(Look(np.zeros(2, np.float32)), said).coarseness.tolist() == [0, 0]


def test_avif_files_are_enhanced_as_they_say(tmp_path, sample_paths):
    """The bundled network takes this one, coded once, for finer than it is, and told of it does more."""
    enhancer = Enhancer("fast", "onnxruntime")
    source = save_avif(tmp_path / "a.avif", read_rgb(sample_paths["coffee"]), 50)
    enhance_files([source], tmp_path / "a.png", enhancer)
    before = read_rgb(source)
    estimated = enhancer.look(before)
    told = with_file(estimated, coarseness("avif", 50))
    assert told is not estimated
    assert np.array_equal(read_rgb(tmp_path / "a.png"), enhancer.with_look(before, told))
    assert not np.array_equal(read_rgb(tmp_path / "a.png"), enhancer.with_look(before, estimated))


def test_a_jpeg_saved_as_avif_is_enhanced_as_it_looks(tmp_path, sample_paths):
    photo = read_rgb(sample_paths["astronaut"])[:192, :192]
    enhancer = Enhancer("fast", "onnxruntime")
    jpeg = io.BytesIO()
    Image.fromarray(photo).save(jpeg, "JPEG", quality=20)
    source = save_avif(tmp_path / "a.avif", np.array(Image.open(jpeg)), 80)
    enhance_files([source], tmp_path / "a.png", enhancer)
    before = read_rgb(source)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), enhancer(before))
