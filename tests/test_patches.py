"""Training patches: the same for the same seed, from everywhere, and with the codec's grid where they say."""

import numpy as np
import pytest

from subjectiveqe.codecs import CODECS
from subjectiveqe.codecs.coarseness import FAMILIES, coarseness
from subjectiveqe.data.pairs import PairInfo
from subjectiveqe.data.patches import Patches
from subjectiveqe.data.prepare import prepare
from subjectiveqe.data.store import open_pairs
from subjectiveqe.errors import ConfigError
from subjectiveqe.images import write_png


class Drawn:
    """Pairs in memory: gt tells each pixel's place, lq steps at every 8-px border."""

    def __init__(self, *sizes):
        self.infos = [PairInfo(f"{n}.png", "jpeg", 10, 100, *size) for n, size in enumerate(sizes)]

    def __len__(self):
        return len(self.infos)

    def read(self, index):
        info = self.infos[index]
        y, x = np.mgrid[: info.height, : info.width]
        gt = np.stack((y, x, np.full_like(y, index)), axis=-1).astype(np.uint8)
        lq = np.stack((y // 8 * 3 + x // 8 * 5,) * 3, axis=-1).astype(np.uint8)
        return lq, gt

    def crop(self, index, top, left, height, width):
        return tuple(picture[top : top + height, left : left + width] for picture in self.read(index))


@pytest.fixture(scope="module")
def store(tmp_path_factory, draw_image):
    folder = tmp_path_factory.mktemp("patches")
    for seed in range(3):
        write_png(folder / "clean" / f"{seed}.png", draw_image((64, 80), seed))
    prepare(folder / "clean", folder / "pairs.lmdb", "jpeg", [10, 50], jobs=1)
    return folder / "pairs.lmdb"


def places(patch):
    """Row and column of the pair that each pixel of a patch came from."""
    return patch.gt[..., 0].astype(int), patch.gt[..., 1].astype(int)


def test_a_patch_is_a_function_of_seed_and_number(store):
    one, two = Patches([open_pairs(store)], 32, seed=3), Patches([open_pairs(store)], 32, seed=3)
    ahead = [one[k] for k in range(12)]
    back = [two[k] for k in reversed(range(12))][::-1]
    for a, b in zip(ahead, back, strict=True):
        assert a.grid == b.grid
        assert np.array_equal(a.lq, b.lq)
        assert np.array_equal(a.gt, b.gt)
    other = Patches([open_pairs(store)], 32, seed=4)
    assert not all(np.array_equal(other[k].lq, ahead[k].lq) for k in range(12))
    assert len({patch.lq.tobytes() for patch in ahead}) == 12


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 warns of every such fork
def test_patches_do_not_depend_on_the_number_of_workers(store):
    from torch.utils.data import DataLoader

    patches = Patches([open_pairs(store)], 32, seed=0, aligned=0.5)
    alone, shared = (
        list(DataLoader(patches, batch_size=4, sampler=range(16), num_workers=workers, collate_fn=list))
        for workers in (0, 2)
    )
    for batch, other in zip(alone, shared, strict=True):
        for a, b in zip(batch, other, strict=True):
            assert np.array_equal(a.lq, b.lq)
            assert np.array_equal(a.gt, b.gt)
            assert a.grid == b.grid


def test_patches_are_contiguous_and_writable(store):
    for aligned in (0.0, 1.0):
        patches = Patches([open_pairs(store)], 64, seed=0, aligned=aligned)
        for k in range(16):
            for picture in patches[k][:2]:
                assert picture.shape == (64, 64, 3)
                assert picture.dtype == np.uint8
                assert picture.flags.c_contiguous
                assert picture.flags.writeable


def test_lq_and_gt_are_the_same_place():
    patches = Patches([Drawn((64, 72))], 24, seed=0)
    for k in range(50):
        patch = patches[k]
        y, x = places(patch)
        assert np.array_equal(patch.lq[..., 0], y // 8 * 3 + x // 8 * 5)


@pytest.mark.parametrize(("patch_px", "aligned"), [(32, 0.0), (27, 0.0), (27, 1.0), (32, 0.5)])
def test_the_grid_is_where_the_patch_says(patch_px, aligned):
    patches = Patches([Drawn((96, 120))], patch_px, seed=1, aligned=aligned)
    numbers = np.arange(1, patch_px)  # a border may lie before each row or column but the first
    seen = set()
    for k in range(200):
        patch = patches[k]
        values = patch.lq[..., 0].astype(int)
        top, left = patch.grid
        assert 0 <= top < 8
        assert 0 <= left < 8
        assert np.array_equal(np.diff(values, axis=0).all(axis=1), (numbers - top) % 8 == 0)
        assert np.array_equal(np.diff(values, axis=1).all(axis=0), (numbers - left) % 8 == 0)
        seen.add(patch.grid)
    assert len(seen) > (40 if aligned == 0 else 3)


def test_the_coarseness_is_that_of_the_pair(store):
    patches = Patches([open_pairs(store)], 16, seed=0)
    known = {coarseness(info.codec, info.level) for info in open_pairs(store).infos}
    assert {patches[k].coarseness for k in range(50)} == known
    assert {len(values) for values in known} == {len(FAMILIES)}


def test_noise_of_the_coarseness_is_drawn_for_each_patch_and_changes_nothing_else(store):
    plain, noisy = (Patches([open_pairs(store)], 16, seed=0, coarseness_noise=noise) for noise in (0.0, 0.1))
    off = np.array([np.subtract(noisy[k].coarseness, plain[k].coarseness) for k in range(400)])
    assert off.std(0) == pytest.approx(0.1, rel=0.15)
    assert abs(np.corrcoef(off.T)[0, 1]) < 0.2
    assert np.array_equal(noisy[7].lq, plain[7].lq)
    assert noisy[7].coarseness == noisy[7].coarseness


@pytest.mark.parametrize(
    ("codec", "level", "expected"),
    [
        ("hevc", 4, (0, 0, 0, 0, 0)),
        ("hevc", 37, (5.5 / 8, 0, 0, 0, 0)),
        ("hm", 37, (5.5 / 8, 0, 0, 0, 0)),
        ("hevc", 2, (0, 0, 0, 0, 0)),  # finer than a step of 1
        ("jpeg", 50, (0, np.log2(57.625) / 8, 0, 0, 0)),  # the standard's table as it stands
        ("jpeg", 25, (0, np.log2(2 * 57.625) / 8, 0, 0, 0)),
        ("jpeg", 75, (0, np.log2(57.625 / 2) / 8, 0, 0, 0)),
        ("jpeg", 100, (0, 0, 0, 0, 0)),
        ("webp", 100, (0, 0, np.log2(4) / 8, 0, 0)),
        ("webp", 75, (0, 0, np.log2(4 + 127 * (1 - 0.5 ** (1 / 3))) / 8, 0, 0)),  # index 26.2 of a table of i + 4
        ("avif", 0, (0, 0, 0, np.log2(1725 / 8) / 8, 0)),  # index 252 of 255, whose step is 1725
        ("avif", 100, (0, 0, 0, 0, 0)),
    ],
)
def test_coarseness_by_hand(codec, level, expected):
    assert coarseness(codec, level) == pytest.approx(expected, abs=1e-3)
    assert coarseness(codec, level, 4) == coarseness(codec, level)[:4]


@pytest.mark.parametrize("codec", FAMILIES)
def test_coarser_levels_are_coarser(codec):
    codec, _, chroma = codec.partition("-")
    low, high = CODECS[codec].level_range
    values = [max(coarseness(codec, level, chroma=chroma)) for level in range(low, high + 1)]
    assert values == sorted(values, reverse=CODECS[codec].level_name == "qf")
    assert max(values) < 1.7


def test_hevc_with_less_chroma_is_a_family_of_its_own_to_networks_that_know_it():
    assert coarseness("hevc", 37, chroma="420") == (0, 0, 0, 0, 5.5 / 8)
    assert coarseness("hevc", 37, 4, chroma="420") == coarseness("hevc", 37, 4, chroma="444") == (5.5 / 8, 0, 0, 0)
    assert coarseness("jpeg", 10, chroma="420") == coarseness("jpeg", 10, chroma="444")


def test_the_coarseness_of_an_unknown_codec_is_unknown():
    assert np.isnan(coarseness("unknown", -1)).all()
    assert np.isnan(coarseness("resaved", 50)).all()
    assert np.isnan(coarseness("webp", 50, 2)).all()  # to a network that is told of the first two
    assert coarseness("webp", 50, 3) == coarseness("webp", 50)[:3]


def test_aligned_patches_start_on_the_16_px_grid():
    patches = Patches([Drawn((96, 120))], 32, seed=0, aligned=1.0)
    for k in range(100):
        y, x = places(patches[k])
        assert y.min() % 16 == 0
        assert x.min() % 16 == 0
        assert patches[k].grid == (0, 0)
    half = Patches([Drawn((96, 120))], 32, seed=0, aligned=0.5)
    share = np.mean([half[k].grid == (0, 0) for k in range(400)])
    assert share == pytest.approx(0.5, abs=0.1)


def test_every_flip_turn_place_and_pair_occurs():
    patches = Patches([Drawn((20, 24), (16, 24)), Drawn((16, 16))], 16, seed=0)
    turns, corners, pairs = set(), set(), []
    for k in range(900):
        patch = patches[k]
        y, x = places(patch)
        down, right = (y[1, 0] - y[0, 0], x[1, 0] - x[0, 0]), (y[0, 1] - y[0, 0], x[0, 1] - x[0, 0])
        turns.add((*down, *right))
        shape = (int(patch.gt[0, 0, 2]), int(y.min()), int(x.min()))
        corners.add(shape)
        pairs.append(shape[0])
    assert len(turns) == 8
    assert {corner[1:] for corner in corners if corner[0] == 0} == {(y, x) for y in range(5) for x in range(9)}
    assert np.mean(pairs) == pytest.approx(1 / 3, abs=0.06)  # index 1 occurs in one pair of three


def test_small_pictures_are_left_out():
    patches = Patches([Drawn((96, 15), (40, 40), (15, 96))], 16, seed=0)
    assert {int(patches[k].gt[0, 0, 2]) for k in range(30)} == {1}
    with pytest.raises(ConfigError, match="none of 3 pairs is 41 px high and wide; take a smaller patch_px"):
        Patches([Drawn((96, 15), (40, 40), (15, 96))], 41, seed=0)


@pytest.mark.parametrize(("patch_px", "seed", "aligned"), [(0, 0, 0.0), (8, -1, 0.0), (8, 0, 1.5)])
def test_arguments_out_of_range_are_refused(patch_px, seed, aligned):
    with pytest.raises(ConfigError, match=r"expected patch_px >= 1, seed >= 0 and aligned in 0..1, got"):
        Patches([Drawn((16, 16))], patch_px, seed, aligned)
