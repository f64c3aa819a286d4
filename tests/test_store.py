"""The paired store: what it gives back, and what happens when it is damaged."""

import gc
import json
import os
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from subjectiveqe.data.pairs import PairInfo, centre, pair_folders
from subjectiveqe.data.prepare import prepare
from subjectiveqe.data.store import DATA, INDEX, _Map, check_store, open_pairs
from subjectiveqe.errors import ConfigError, StoreError
from subjectiveqe.images import read_rgb, write_png

SIZES = [(40, 48), (24, 72), (50, 61)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory, draw_image):
    folder = tmp_path_factory.mktemp("clean")
    for seed, size in enumerate(SIZES):
        write_png(folder / f"{seed}.png", draw_image(size, seed))
    return folder


@pytest.fixture(scope="module", params=["lmdb", "png"])
def made(request, tmp_path_factory, clean):
    out = tmp_path_factory.mktemp("made") / f"jpeg.{request.param}"
    prepare(clean, out, "jpeg", [10, 50], layout=request.param, jobs=1)
    return out


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / made.name)  # to be damaged


def data_files(store):
    return sorted(store.glob("*/*.png")) or [store / DATA]


def test_a_store_gives_back_what_the_codec_made(made, clean):
    from subjectiveqe.codecs import get_codec

    pairs = open_pairs(made)
    assert len(pairs) == len(pairs.infos) == 6
    assert [(info.name, info.level) for info in pairs.infos[:3]] == [("0.png", 10), ("0.png", 50), ("1.png", 10)]
    for index, info in enumerate(pairs.infos):
        lq, gt = pairs.read(index)
        original = read_rgb(clean / info.name)
        height, width = (side // 8 * 8 for side in original.shape[:2])
        coded = get_codec("jpeg").code(np.ascontiguousarray(original[:height, :width]), info.level)
        assert (info.codec, info.chroma, info.num_bytes) == ("jpeg", "420", coded.num_bytes)
        assert gt.shape == lq.shape == (info.height, info.width, 3) == (height, width, 3)
        assert np.array_equal(gt, original[:height, :width])
        assert np.array_equal(lq, coded.rgb)
        crops = pairs.crop(index, 3, 5, 16, 17)
        assert all(np.array_equal(crop, whole[3:19, 5:22]) for crop, whole in zip(crops, (lq, gt), strict=True))
    assert check_store(made) == 6


def test_bits_per_pixel():
    assert PairInfo("a.png", "jpeg", 10, num_bytes=96, height=16, width=24).bpp == 2


def test_an_original_is_stored_once(tmp_path, clean):
    prepare(clean, tmp_path / "few", "jpeg", [50], jobs=1)
    prepare(clean, tmp_path / "many", "jpeg", [10, 20, 30, 40, 50], jobs=1)
    few, many = ((tmp_path / name / DATA).stat().st_size for name in ("few", "many"))
    pixels = sum(info.height * info.width * 3 for info in open_pairs(tmp_path / "few").infos)
    assert few >= 2 * pixels
    assert many >= 6 * pixels
    assert many - few < 4 * pixels + 20 * 8192  # four more arrays per picture, and their page ends


def test_crops_of_lmdb_are_views_that_outlive_the_store_object(made):
    if made.suffix == ".png":
        pytest.skip("PNG files are decoded")
    lq, gt = open_pairs(made).crop(0, 0, 0, 40, 48)
    gc.collect()  # the object that opened the map is gone; the map must not be
    assert not lq.flags.owndata
    assert not lq.flags.writeable
    assert np.array_equal(gt, open_pairs(made).read(0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 warns of every such fork
def test_a_store_is_usable_after_pickling_and_after_a_fork(made):
    pairs = open_pairs(made)
    expected = pairs.read(2)[0].tobytes()
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy.read(2)[0].tobytes() == expected
    held = pairs.read(2)[0]
    child = os.fork()
    if child == 0:
        sound = pairs.read(2)[0].tobytes() == held.tobytes() == copy.read(2)[0].tobytes() == expected
        os._exit(0 if sound else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pairs.read(2)[0].tobytes() == expected


def test_threads_may_begin_to_read_a_store_at_once(made, monkeypatch):
    """LMDB opens a file once in a process; here it takes its time."""
    monkeypatch.setattr(
        _Map, "__init__", lambda self, path, init=_Map.__init__: (time.sleep(0.05), init(self, path))[1]
    )
    with ThreadPoolExecutor(4) as pool:
        read = [*pool.map(lambda pairs: pairs.read(0)[0].copy(), [open_pairs(made) for _ in range(4)])]
    assert all(np.array_equal(lq, read[0]) for lq in read)


def test_a_store_that_was_cut_short_does_not_open(store):
    file = data_files(store)[0]
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(StoreError, match=r"jpeg\.\w+: cut short or changed, \d+ bytes of pixels, the index says \d+"):
        open_pairs(store)


def test_a_store_with_more_in_it_than_the_index_says_does_not_open(store):
    with data_files(store)[0].open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match="cut short or changed"):
        open_pairs(store)


def test_a_store_without_its_pixels_does_not_open(store):
    data_files(store)[0].unlink()
    with pytest.raises(StoreError, match="cut short"):
        open_pairs(store)


@pytest.mark.parametrize("which", ["original", "pair"])
def test_a_flipped_bit_of_a_pixel_is_found_by_the_check(store, which):
    lq, gt = (picture.copy() for picture in open_pairs(store).read(3))
    picture = gt if which == "original" else lq
    if (store / DATA).exists():
        data = bytearray((store / DATA).read_bytes())
        data[bytes(data).index(picture.tobytes()) + 1000] ^= 4
        (store / DATA).write_bytes(data)
    else:
        size = (store / INDEX).stat().st_size  # a picture with one wrong pixel in a file of the same length is made up:
        picture[5, 5, 1] ^= 4  # damage that PNG's own checksum does not see
        path = store / ("gt/1.png.png" if which == "original" else "lq/1.png__jpeg-50.png")
        before = path.stat().st_size
        write_png(path, picture)
        rewrite_index(
            store, lambda content: content.update(data_bytes=content["data_bytes"] + path.stat().st_size - before)
        )
        assert abs((store / INDEX).stat().st_size - size) < 3
    open_pairs(store)
    named = r'the original "1\.png"' if which == "original" else r'"1\.png" \(jpeg 50\)'
    with pytest.raises(StoreError, match=f"{named}.* damaged; make the store again"):
        check_store(store)


def test_a_flipped_bit_in_a_png_is_one_line(made, tmp_path):
    if made.suffix == ".lmdb":
        pytest.skip("PNG only")
    store = shutil.copytree(made, tmp_path / "store")
    file = store / "lq" / "1.png__jpeg-50.png"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"1\.png") as caught:
        check_store(store)
    assert "\n" not in str(caught.value)


def rewrite_index(store, change):
    """Writes a changed index with the right checksum, as another program might."""
    from subjectiveqe.data import store as module

    header = json.loads((store / INDEX).read_text())
    change(header["content"])
    header["blake2b"] = module._digest(header["content"])
    (store / INDEX).write_text(json.dumps(header) + "\n")


def test_a_flipped_bit_of_header_or_index_is_found_at_opening(store):
    whole = (store / INDEX).read_bytes()
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        (store / INDEX).write_bytes(damaged)
        with pytest.raises(StoreError, match=r"jpeg\.\w+.*make the store again"):
            open_pairs(store)
    (store / INDEX).write_bytes(whole)
    open_pairs(store)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_an_index_that_was_cut_does_not_open(store, share):
    size = (store / INDEX).stat().st_size
    os.truncate(store / INDEX, int(share * size))
    with pytest.raises(StoreError, match="damaged header; make the store again"):
        open_pairs(store)


def test_damage_to_the_tree_of_lmdb_is_found_by_the_check(made, tmp_path):
    if made.suffix == ".png":
        pytest.skip("LMDB only")
    store = shutil.copytree(made, tmp_path / "store")
    data = bytearray((store / DATA).read_bytes())
    start = bytes(data).rindex(b"lq/2.png/jpeg/50")
    data[start : start + 2] = b"xx"  # the key in the page of the tree written last
    (store / DATA).write_bytes(data)
    with pytest.raises(StoreError, match=r"data\.mdb: damaged"):
        check_store(store)


def test_other_formats_and_versions_are_refused(store):
    header = json.loads((store / INDEX).read_text())
    (store / INDEX).write_text(json.dumps({**header, "version": 2}))
    with pytest.raises(StoreError, match="format version 2, this program reads 1"):
        open_pairs(store)
    (store / INDEX).write_text(json.dumps({**header, "version": 0}))
    with pytest.raises(StoreError, match="format version 0, this program reads 1"):
        open_pairs(store)
    (store / INDEX).write_text(json.dumps({**header, "format": "something"}))
    with pytest.raises(StoreError, match='format "something", expected "subjectiveqe-pairs"'):
        open_pairs(store)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match='no such store; make it with "sqe prepare"'):
        open_pairs(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"not a paired store \(index.json is missing\)"):
        open_pairs(tmp_path)


def test_two_folders_made_by_hand_are_pairs(tmp_path, draw_image):
    gt = draw_image((43, 50))
    for name in ("a", "b", "c"):
        write_png(tmp_path / "gt" / f"{name}.png", gt)
    write_png(tmp_path / "lq" / "a.png", gt[:40, :48] // 2)
    write_png(tmp_path / "lq" / "c.png", gt // 2)
    pairs = open_pairs(tmp_path)
    size = (tmp_path / "lq" / "a.png").stat().st_size
    assert pairs.infos[0] == PairInfo("a.png", "unknown", -1, size, 40, 48)
    assert [info.name for info in pairs.infos] == ["a.png", "c.png"]
    lq, original = pairs.read(0)
    assert np.array_equal(lq, gt[:40, :48] // 2)
    assert np.array_equal(original, gt[:40, :48])
    with pytest.raises(StoreError, match="two plain folders"):
        check_store(tmp_path)


@pytest.mark.parametrize("kind", ["16 bits", "transparent", "plain"])
def test_a_png_of_a_folder_is_read_as_any_other_picture(tmp_path, draw_image, kind):
    import pyvips

    (tmp_path / "lq").mkdir()
    write_png(tmp_path / "gt" / "a.png", draw_image((40, 48)))
    if kind == "16 bits":
        deep = np.minimum(draw_image((40, 48)), 254).astype(np.uint16) * 257 + 129  # nearer to the next level
        pyvips.Image.new_from_array(deep, interpretation="rgb16").pngsave(str(tmp_path / "lq" / "a.png"), bitdepth=16)
        expected = np.rint(deep / 257)
    else:
        expected = draw_image((40, 48))
        clear = tuple(map(int, expected[5, 7]))
        extra = {"transparency": clear} if kind == "transparent" else {}
        Image.fromarray(expected).save(tmp_path / "lq" / "a.png", **extra)
        if extra:
            expected = np.where((expected == clear).all(-1, keepdims=True), 255, expected)
    lq, _ = open_pairs(tmp_path).read(0)
    assert np.array_equal(lq, read_rgb(tmp_path / "lq" / "a.png"))
    assert np.array_equal(lq, expected)


def test_a_png_that_lies_turned_is_read_upright(tmp_path, draw_image):
    turned = Image.Exif()
    turned[0x0112] = 6
    for folder in ("lq", "gt"):
        (tmp_path / folder).mkdir()
        Image.fromarray(draw_image((40, 48))).save(tmp_path / folder / "a.png", exif=turned)
    pairs = open_pairs(tmp_path)
    assert (pairs.infos[0].height, pairs.infos[0].width) == (48, 40)
    for picture in pairs.read(0):
        assert np.array_equal(picture, np.rot90(draw_image((40, 48)), -1))


def test_a_picture_that_has_shrunk_since_is_named(tmp_path, draw_image):
    for folder in ("lq", "gt"):
        write_png(tmp_path / folder / "a.png", draw_image((40, 48)))
    pairs = open_pairs(tmp_path)
    write_png(tmp_path / "gt" / "a.png", draw_image((40, 40)))
    with pytest.raises(StoreError, match=r"gt.a\.png: smaller than 48x40 px"):
        pairs.read(0)


def test_the_middle_lies_on_the_grid_of_the_codec(tmp_path, draw_image):
    lq, gt = (draw_image((100, 150), seed) for seed in (0, 1))
    write_png(tmp_path / "lq" / "a.png", lq)
    write_png(tmp_path / "gt" / "a.png", gt)
    pairs = open_pairs(tmp_path)
    for found, whole in zip(centre(pairs, 0, 60), (lq, gt), strict=True):
        assert np.array_equal(found, whole[16:76, 32:92])
    for found, whole in zip(centre(pairs, 0, None), (lq, gt), strict=True):
        assert np.array_equal(found, whole)


def test_folders_that_do_not_fit_are_refused(tmp_path, draw_image):
    lq, gt = tmp_path / "lq", tmp_path / "gt"
    lq.mkdir()
    with pytest.raises(ConfigError, match="no such folder"):
        pair_folders(lq, gt)
    gt.mkdir()
    with pytest.raises(ConfigError, match="no pictures in this folder"):
        pair_folders(lq, gt)
    write_png(lq / "a.png", draw_image((16, 16)))
    with pytest.raises(ConfigError, match=r'a\.png: no picture named "a" in .*gt'):
        pair_folders(lq, gt)
    write_png(gt / "a.png", draw_image((16, 24)))
    with pytest.raises(ConfigError, match=r"16x16 px, but its original .* has 24x16; expected the same size"):
        pair_folders(lq, gt)


def test_two_pictures_of_one_name_are_refused(tmp_path, draw_image):
    for folder, name in (("lq", "a.png"), ("gt", "a.png"), ("gt", "a.bmp")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(draw_image((40, 40))).save(tmp_path / folder / name)
    with pytest.raises(ConfigError, match=r"a\.png: pictures are paired by name, and a\.bmp has the same"):
        pair_folders(tmp_path / "lq", tmp_path / "gt")
