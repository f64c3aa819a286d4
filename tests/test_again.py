"""Pictures that were saved again: what lies beneath is what was done to them, and is looked for where it may be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from subjectiveqe.codecs import CODECS, crop_to_multiple, get_codec
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


JPEG, NEVER = [0, 0.4, 0, 0, 0], -20


@pytest.mark.parametrize(
    ("seen", "beneath", "log_odds", "told"),
    [
        (JPEG, [0, 0, 0.7, 0, 0], [NEVER, NEVER, 5, NEVER, NEVER], [0, 0, 0.7, 0, 0]),
        (JPEG, [0.9, 0.9, 0.7, 0.9, -1], [NEVER, NEVER, 5, NEVER, NEVER], [0, 0, 0.7, 0, 0]),
        (JPEG, [0, 0.6, 0, 0, 0], [NEVER, 5, NEVER, NEVER, NEVER], [0, 0.5, 0, 0, 0]),  # half-way
        (JPEG, [0.6, 0, 0, 0.4, 0.9], [4, NEVER, NEVER, 4, NEVER], [0.3, 0, 0, 0.2, 0]),  # each its share
        (JPEG, [0.6, 0, 0, 0.6, 0.6], [0.5, NEVER, NEVER, 0.5, 0.5], [0.2, 0, 0, 0.2, 0.2]),  # likely together
        (JPEG, [0, 0, 0.7, 0, 0], [NEVER, NEVER, 0.8, NEVER, NEVER], None),  # not likely enough
        (JPEG, [0, 0, 0.35, 0, 0], [NEVER, NEVER, 5, NEVER, NEVER], None),  # finer than the JPEG
        ([0, 0.26, 0, 0, 0], [0, 0, 0.28, 0, 0], [NEVER, NEVER, 5, NEVER, NEVER], None),  # next to nothing
        ([0, 0.7, 0, 0, 0], [0, 0, 0.9, 0, 0], [NEVER, NEVER, 5, NEVER, NEVER], None),  # a coarse JPEG
        ([0, 0.1, 0, 0, 0], [0, 0, 0.9, 0, 0], [NEVER, NEVER, 5, NEVER, NEVER], None),  # hardly a JPEG
        ([0.5, 0.4, 0, 0, 0], [0, 0, 0.9, 0, 0], [NEVER, NEVER, 5, NEVER, NEVER], None),  # HEVC
        (JPEG, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], None),  # untaught
        (JPEG, [0, 0, 0.7, 0, 0.7], [NEVER, NEVER, 1000, NEVER, 900], [0, 0, 0.7, 0, 0]),  # beyond what floats hold
        (JPEG, [0, 0, 0.7, 0, 0], [-1000] * 5, None),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_look_beneath_counts_where_the_jpeg_is_fine(seen, beneath, log_odds, told):
    found = look_beneath(*(np.array(values, np.float32) for values in (seen, beneath, log_odds)))
    assert (found is None) == (told is None)
    assert found is None or found.tolist() == pytest.approx(told, abs=1e-6)


def test_nothing_is_looked_for_beneath_icons(enhancer, monkeypatch):
    """A shape on a plain ground; blocks are flat that change by a level at most."""
    monkeypatch.setattr("subjectiveqe.enhancing.look.look_beneath", lambda *_: np.full(5, 0.5, np.float32))
    icon = np.full((400, 400, 3), 200, np.uint8)
    icon[:, :140] = read_rgb(samples()[0])[:400, :140]
    icon[::2, 140:] -= 1
    assert enhancer.look(icon).surface is None
    icon[:, :180] = read_rgb(samples()[0])[:400, :180]
    assert enhancer.look(icon).surface is not None


def test_a_network_of_one_family_has_nothing_beneath():
    seen, beneath, log_odds = (np.array([value], np.float32) for value in (0.4, 0.9, 9))
    assert look_beneath(seen, beneath, log_odds) is None


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer("fast", "onnxruntime")


@pytest.mark.parametrize(("codec", "level"), [("webp", 20), ("hevc", 37)])
def test_what_was_saved_again_is_told_from_a_jpeg_of_that_quality(enhancer, codec, level):
    """Also where a file says how fine the JPEG is: its tables know nothing of what came before."""
    told = {codec: 0, "jpeg": 0}
    for path in samples():
        gt = crop_to_multiple(read_rgb(path), 8)
        for kind, picture in ((codec, get_codec(codec).code(gt, level).rgb), ("jpeg", gt)):
            look = enhancer.look(get_codec("jpeg").code(picture, 95).rgb)
            told[kind] += (enhancer.taken_for(with_file(look, coarseness("jpeg", 95))) or "").startswith(kind)
    assert told == {codec: 2, "jpeg": 3}  # one of the three has too few patches


def test_what_lies_beneath_is_taken_for_all_that_its_families_share(enhancer):
    surface = np.array([0, 0.4, 0, 0, 0], np.float32)
    shares = np.array([0.36, 0, 0.02, 0, 0.3], np.float32)
    assert enhancer.taken_for(Look(shares, surface=surface)) == "hevc:37"
    assert enhancer.taken_for(Look(shares)) == "hevc:21"


def test_what_lies_beneath_counts_for_jpeg_files(enhancer):
    """Other files never hold the fine JPEG that a picture looks like; what it looks like counts then."""
    surface, beneath = np.array([0, 0.4, 0, 0, 0], np.float32), np.array([0, 0, 0.7, 0, 0], np.float32)
    look = Look(beneath, surface=surface)
    assert with_file(look, coarseness("jpeg", 90)) is look
    assert with_file(look, coarseness("jpeg", 100)) is look
    shares = Look(np.array([0.35, 0, 0.1, 0, 0.3], np.float32), surface=surface)  # none as coarse as the file says
    assert with_file(shares, coarseness("jpeg", 85)) is shares
    assert with_file(shares, coarseness("jpeg", 50)).coarseness[1] == pytest.approx(coarseness("jpeg", 50)[1])
    assert with_file(look, None) is look
    for codec, level in (("webp", 90), ("avif", 70)):
        assert with_file(look, coarseness(codec, level)).coarseness is surface
    patch = get_codec("jpeg").code(get_codec("webp").code(read_rgb(samples()[0])[:192, :192], 20).rgb, 95).rgb
    assert enhancer.look(patch).surface is None  # one patch tells too little
