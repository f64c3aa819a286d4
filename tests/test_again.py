"""Pictures that were saved again: what lies beneath is what was done to them, and is looked for where it may be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from subjectiveqe.codecs import CODECS, get_codec
from subjectiveqe.codecs.coarseness import FAMILIES, coarseness
from subjectiveqe.data.again import ORIGINALS, saved_again
from subjectiveqe.data.pairs import PairInfo
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.look import Look, look_beneath, with_file
from subjectiveqe.images import read_rgb
from subjectiveqe.samples import samples


class Pairs:
    """One pair of a codec, of which nothing but the original is looked at."""

    def __init__(self, gt, codec, level, chroma=""):
        self.gt = gt
        self.infos = [PairInfo("a.png", codec, level, 100, *gt.shape[:2], chroma)]

    def crop(self, _, top, left, height, width):
        return None, self.gt[top : top + height, left : left + width]


@pytest.fixture(scope="module")
def picture(draw_image):
    return draw_image((130, 170))


def drawn(pairs, count):
    rng = np.random.default_rng(0)
    return [saved_again(pairs, 0, len(FAMILIES), rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("codec", "level", "chroma"),
    [("webp", 20, "420"), ("avif", 30, "444"), ("hevc", 37, "444"), ("hevc", 32, "420"), ("hm", 37, "444")],
)
def test_what_compressed_a_picture_lies_beneath(picture, codec, level, chroma):
    known = coarseness(codec, level, chroma=chroma)
    found = drawn(Pairs(picture, codec, level, chroma), 20)
    by_kind = {again.kind: again.truth for again in found}
    assert by_kind == {(f"{codec} {chroma}", level): known, ORIGINALS: (0.0,) * len(FAMILIES)}


def test_jpegs_are_cut_at_odd_places_or_scaled(picture):
    found = drawn(Pairs(picture, "jpeg", 20, "420"), 80)
    kinds = Counter(again.kind for again in found)
    assert set(kinds) == {("jpeg 420", 20), ("jpeg 420 scaled", 20), ORIGINALS}
    assert kinds[ORIGINALS] in range(25, 48)  # 45 of a hundred
    place, whole = FAMILIES.index("jpeg"), coarseness("jpeg", 20)
    cut = [again for again in found if again.kind == ("jpeg 420", 20)]
    assert all(again.truth == whole for again in cut)
    assert len({again.rgb.shape for again in cut}) > 5
    scaled = [again for again in found if again.kind == ("jpeg 420 scaled", 20)]
    assert all(whole[place] - 0.5 <= again.truth[place] < whole[place] for again in scaled)
    assert all(again.rgb.shape[0] < 128 for again in scaled)


def test_the_same_generator_draws_the_same(picture):
    pairs = Pairs(picture, "webp", 20)
    one, other = drawn(pairs, 5), drawn(pairs, 5)
    assert all(np.array_equal(a.rgb, b.rgb) and a[1:] == b[1:] for a, b in zip(one, other, strict=True))
    assert len({again.rgb.tobytes() for again in one}) == 5


def test_of_what_nobody_knows_nothing_is_drawn(picture):
    assert saved_again(Pairs(picture, "resaved", 40), 0, 5, np.random.default_rng(0)) is None
    assert saved_again(Pairs(picture, "avif", 40), 0, 2, np.random.default_rng(0)) is None
    assert "resaved" in CODECS


@pytest.mark.parametrize(
    ("seen", "beneath", "told"),
    [
        ([0, 0.4, 0, 0, 0], [0, 0, 0.7, 0, 0], [0, 0, 0.7, 0, 0]),
        ([0, 0.4, 0, 0, 0], [0, 0.6, 0, 0, 0], [0, 0.5, 0, 0, 0]),  # half-way
        ([0, 0.4, 0, 0, 0], [0, 0, 0.45, 0, 0], None),  # little to gain
        ([0, 0.58, 0, 0, 0], [0, 0, 0.6, 0, 0], None),  # no more than the JPEG
        ([0, 0.7, 0, 0, 0], [0, 0, 0.9, 0, 0], None),  # a coarse JPEG, of which it knows nothing
        ([0, 0.1, 0, 0, 0], [0, 0, 0.9, 0, 0], None),  # hardly a JPEG
        ([0.5, 0.4, 0, 0, 0], [0, 0, 0.9, 0, 0], None),  # HEVC
    ],
)
def test_a_look_beneath_counts_where_the_jpeg_is_fine(seen, beneath, told):
    expected = seen if told is None else told
    found = look_beneath(np.array(seen, np.float32), np.array(beneath, np.float32))
    assert found.tolist() == pytest.approx(expected)


def test_a_network_of_one_family_has_nothing_beneath():
    seen, beneath = np.array([0.4], np.float32), np.array([0.9], np.float32)
    assert look_beneath(seen, beneath) is seen


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer("fast", "onnxruntime")


def test_webp_saved_again_is_told_from_a_jpeg_of_that_quality(enhancer):
    told = {"webp": 0, "jpeg": 0}
    for path in samples():
        gt = read_rgb(path)
        jpeg = get_codec("jpeg")
        again = enhancer.look(jpeg.code(get_codec("webp").code(gt, 20).rgb, 95).rgb)
        alone = enhancer.look(jpeg.code(gt, 95).rgb)
        told["webp"] += enhancer.taken_for(again).startswith("webp")
        told["jpeg"] += enhancer.taken_for(alone).startswith("jpeg")
    assert told["jpeg"] == len(samples())
    assert told["webp"] >= len(samples()) // 2


def test_what_lies_beneath_counts_for_jpeg_files(enhancer):
    """Other files never hold the fine JPEG that a picture looks like; what it looks like counts then."""
    surface, beneath = np.array([0, 0.4, 0, 0, 0], np.float32), np.array([0, 0, 0.7, 0, 0], np.float32)
    look = Look(beneath, surface=surface)
    assert with_file(look, coarseness("jpeg", 90)) is look
    assert with_file(look, None) is look
    for codec, level in (("webp", 90), ("avif", 70)):
        assert with_file(look, coarseness(codec, level)).coarseness is surface
    patch = get_codec("jpeg").code(get_codec("webp").code(read_rgb(samples()[0])[:192, :192], 20).rgb, 95).rgb
    assert enhancer.look(patch).surface is None  # one patch tells too little
