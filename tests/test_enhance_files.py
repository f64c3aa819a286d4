"""Enhancing files and folders: names, clashes, failures, what is kept."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import unicodedata
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from subjectiveqe.enhancing import files, picture
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import BatchProgress, enhance_files, enhance_stream
from subjectiveqe.enhancing.look import Look
from subjectiveqe.enhancing.plan import plan_jobs
from subjectiveqe.errors import ConfigError, ImageError
from subjectiveqe.files import atomic_path, cache_folder, write_text
from subjectiveqe.formats.photos import FORMATS, open_photo
from subjectiveqe.formats.saving import Saving
from subjectiveqe.images import read_rgb, sniff_format, write_png

PNG = Saving("png")


def save_jpeg(path, image, **options):
    Image.fromarray(image).save(path, quality=30, **options)
    return path


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_one_picture_becomes_one_file(tmp_path, enhancer, draw_image):
    source = save_jpeg(tmp_path / "a.jpg", draw_image((33, 47)))
    result = enhance_files([source], tmp_path / "new" / "b.png", enhancer)
    assert [(o.job.source, o.job.target) for o in result.of("done")] == [(source, tmp_path / "new" / "b.png")]
    with Image.open(source) as before, Image.open(tmp_path / "new" / "b.png") as after:
        assert np.array_equal(np.asarray(after), enhancer(np.asarray(before)))


def test_folders_keep_their_subfolders_and_a_bad_picture_does_not_stop_the_rest(tmp_path, enhancer, draw_image):
    folder = tmp_path / "in"
    (folder / "inner").mkdir(parents=True)
    save_jpeg(folder / "a.jpg", draw_image((8, 9)))
    save_jpeg(folder / "inner" / "a.jpg", draw_image((9, 8)))
    cut = save_jpeg(folder / "cut.jpg", draw_image((64, 64)))
    cut.write_bytes(cut.read_bytes()[:700])
    (folder / "text.png").write_text("no picture")
    single = save_jpeg(tmp_path / "single.jpg", draw_image((5, 5)))
    seen = []

    class Watch(BatchProgress):
        def started(self, total):
            seen.append(total)

        def advanced(self, pictures):
            seen.append(pictures)

    result = enhance_files(
        [folder, single, tmp_path / "gone.jpg"], tmp_path / "out", enhancer, recursive=True, progress=Watch()
    )
    assert names(tmp_path / "out") == ["a.jpg", "inner/a.jpg", "single.jpg"]
    assert [o.job.source.name for o in result.of("failed")] == ["cut.jpg", "text.png", "gone.jpg"]
    assert all(o.reason and "\n" not in o.reason for o in result.of("failed"))
    assert seen[0] == seen[-1] == 6
    assert sorted(seen[1:]) == seen[1:]


def test_what_happens_to_results_that_are_there_is_one_of_three(tmp_path, enhancer, draw_image):
    source, target = save_jpeg(tmp_path / "a.jpg", draw_image((8, 8))), tmp_path / "b.png"
    target.write_text("of somebody")
    with pytest.raises(ConfigError, match='existing: expected one of refuse, skip, overwrite, got "Skip"'):
        enhance_files([source], target, enhancer, existing="Skip")
    assert target.read_text() == "of somebody"


def test_pages_are_looked_at_one_by_one_and_frames_together(tmp_path, draw_image, monkeypatch):
    seen = []

    class Looking(Enhancer):
        def strips(self, read, height, width, look, progress=None):
            seen.append(look)
            return super().strips(read, height, width, look, progress)

    told = iter(range(10))
    look = Enhancer.look_at_strips

    def look_by_number(self, read, height, width):
        assert height == 44
        return look(self, read, height, width)._replace(grid=(next(told) // 2, 0))

    monkeypatch.setattr(Enhancer, "look_at_strips", look_by_number)
    enhancer = Looking("fast", "onnxruntime")
    pages = [Image.fromarray(draw_image((44, 60), seed)) for seed in range(3)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "frames.webp", save_all=True, append_images=pages[1:], duration=100, lossless=True)
    alone = [enhancer.look(np.asarray(page)).coarseness for page in pages]
    for name in ("pages.tiff", "frames.webp"):
        told = iter(range(10))
        [done] = enhance_files([tmp_path / name], tmp_path / "out" / name, enhancer).outcomes
        assert done.status == "done", done.reason
    np.testing.assert_allclose([look.coarseness for look in seen[:3]], alone)
    np.testing.assert_allclose([look.coarseness for look in seen[3:]], [np.mean(alone, axis=0)] * 3, atol=1e-6)
    assert [look.grid[0] for look in seen] == [0, 0, 1, 0, 0, 0]


def test_progress_goes_on_from_page_to_page(tmp_path, enhancer):
    frames = [Image.new("RGB", (40, 24), colour) for colour in ("red", "blue", "white")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    photo, told = open_photo(tmp_path / "a.tif", "tiff"), []
    for _ in picture.enhance_photo(photo, enhancer, [Look(None)] * 3, lambda *state: told.append(state)):
        pass
    photo.close()
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_gray_saved_as_colours_gets_none(tmp_path, sample_paths, name):
    gray = Image.open(sample_paths["astronaut"]).convert("L").crop((0, 0, 200, 150))
    Image.merge("RGB", [gray] * 3).save(tmp_path / name, quality=10)
    [done] = enhance_files([tmp_path / name], tmp_path / "out.png", Enhancer("fast", "onnxruntime")).outcomes
    out = read_rgb(tmp_path / "out.png").astype(int)
    assert np.ptp(out, axis=2).max() == 0
    assert done.status == "done"


def test_an_error_of_a_library_stops_one_picture_alone(tmp_path, enhancer, draw_image, monkeypatch):
    look = picture._look_at_pages

    def meet_an_odd_file(source, *arguments):
        if source.name == "odd.jpg":
            raise KeyError("data")
        return look(source, *arguments)

    monkeypatch.setattr(picture, "_look_at_pages", meet_an_odd_file)
    for name in ("a.jpg", "odd.jpg", "z.jpg"):
        save_jpeg(tmp_path / name, draw_image((8, 8)))
    result = enhance_files([tmp_path], tmp_path / "out", enhancer)
    assert [o.reason for o in result.of("failed")] == ["cannot be enhanced (KeyError: 'data')"]
    assert names(tmp_path / "out") == ["a.jpg", "z.jpg"]


def test_outcomes_are_in_the_order_of_the_inputs_whichever_ends_first(tmp_path, enhancer, draw_image, monkeypatch):
    slow, quick = (save_jpeg(tmp_path / name, draw_image((8, 8))) for name in ("slow.jpg", "quick.jpg"))
    ended, first_ended = [], threading.Event()

    class Watch(BatchProgress):
        def finished(self, outcome):
            ended.append(outcome.job.source)
            first_ended.set()

    def open_late(path, format_out):
        assert path != slow or first_ended.wait(60)
        return open_photo(path, format_out)

    open_photo = picture.open_photo
    monkeypatch.setattr(picture, "open_photo", open_late)
    result = enhance_files([slow, quick], tmp_path / "out", enhancer, jobs=2, progress=Watch())
    assert ended == [quick, slow]
    assert [o.job.source for o in result.of("done")] == [slow, quick]


def test_a_second_run_does_not_take_its_own_results_for_input(tmp_path, enhancer, draw_image):
    save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    for _ in range(2):
        result = enhance_files([tmp_path], tmp_path / "better", enhancer, recursive=True, existing="overwrite")
        assert len(result.of("done")) == 1
    assert names(tmp_path) == ["a.jpg", "better/a.jpg"]


@pytest.mark.parametrize("format_out", [None, "png"])
def test_results_beside_their_sources_are_no_input_either(tmp_path, enhancer, draw_image, format_out):
    save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    options = {"saving": Saving(format_out), "suffix": "-better"}
    enhance_files([tmp_path], None, enhancer, **options)
    with pytest.raises(ConfigError, match="exists already; add --overwrite, --skip-existing"):
        enhance_files([tmp_path], None, enhancer, **options)
    save_jpeg(tmp_path / "b.jpg", draw_image((8, 8)))
    result = enhance_files([tmp_path], None, enhancer, existing="skip", **options)
    assert [len(result.of(status)) for status in ("done", "skipped")] == [1, 1]
    extension = format_out or "jpg"
    assert names(tmp_path) == sorted(["a.jpg", "b.jpg", f"a-better.{extension}", f"b-better.{extension}"])


def test_results_may_go_into_a_folder_above(tmp_path, enhancer, draw_image, monkeypatch):
    (tmp_path / "2020").mkdir()
    monkeypatch.chdir(tmp_path)
    save_jpeg(tmp_path / "2020" / "a.jpg", draw_image((8, 8)))
    for _ in range(2):
        result = enhance_files([Path("2020")], Path(), enhancer, existing="overwrite")
        assert len(result.of("done")) == 1
    assert names(tmp_path) == ["2020/a.jpg", "a.jpg"]


@pytest.mark.parametrize(("suffix", "format_out"), [("-y", None), ("-y", "png")])
def test_results_in_the_folder_of_their_sources_are_no_input_either(tmp_path, enhancer, draw_image, suffix, format_out):
    options = {"saving": Saving(format_out), "suffix": suffix, "recursive": True}
    for name in ("a.jpg", "inner/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_jpeg(tmp_path / name, draw_image((8, 8)))
    enhance_files([tmp_path], tmp_path / "inner" / "..", enhancer, **options)
    after = names(tmp_path)
    assert len(after) == 4
    with pytest.raises(ConfigError, match="exists already; add --overwrite, --skip-existing"):
        enhance_files([tmp_path], tmp_path, enhancer, **options)
    for existing, status in (("skip", "skipped"), ("overwrite", "done")):
        assert len(enhance_files([tmp_path], tmp_path, enhancer, existing=existing, **options).of(status)) == 2
        assert names(tmp_path) == after


def test_a_result_that_is_named_is_an_input_and_stays(tmp_path, enhancer, draw_image):
    sources = [save_jpeg(tmp_path / name, draw_image((8, 8))) for name in ("a.jpg", "a-y.jpg")]
    before = sources[1].read_bytes()
    with pytest.raises(ConfigError, match=r'a-y\.jpg" would overwrite the input'):
        enhance_files(sources, None, enhancer, suffix="-y", existing="overwrite")
    assert sources[1].read_bytes() == before


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_an_original_is_not_taken_for_a_result_of_its_name(tmp_path, enhancer, draw_image, existing):
    save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    write_png(tmp_path / "a.png", draw_image((8, 8), 1))
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(ConfigError, match=r"would both become|would overwrite the input"):
        enhance_files([tmp_path], tmp_path, enhancer, saving=PNG, existing=existing)
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("recursive", [True, False])
def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_done(
    tmp_path, enhancer, draw_image, monkeypatch, recursive
):
    folder, locked = tmp_path / "in", tmp_path / "in" / "locked"
    locked.mkdir(parents=True)
    for place in (folder, locked):
        save_jpeg(place / "a.jpg", draw_image((8, 8)))
    scan = os.scandir

    def refuse(path):
        if Path(path) == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs = [folder] if recursive else [locked, folder]
    for _ in range(2):
        result = enhance_files(inputs, tmp_path / "out", enhancer, recursive=recursive, existing="overwrite")
        assert [o.job.source for o in result.of("done")] == [folder / "a.jpg"]
        [failed] = result.of("failed")
        assert (failed.job.source, failed.reason) == (locked, "cannot be read (Permission denied)")


@pytest.mark.parametrize("spelling", ["same", "relative", "symlink", "folder link", "hard link", "another input"])
def test_nothing_overwrites_a_source(tmp_path, enhancer, draw_image, spelling, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    source = folder / "a.png"
    write_png(source, draw_image((8, 8)))
    content = source.read_bytes()
    inputs, out = [source], tmp_path / "b.png"
    if spelling == "same":
        out = source
    elif spelling == "relative":
        monkeypatch.chdir(folder)
        out = tmp_path / "in" / ".." / "in" / "a.png"
        inputs = [source.relative_to(folder)]
    elif spelling == "symlink":
        out.symlink_to(source)
    elif spelling == "folder link":
        (tmp_path / "link").symlink_to(folder)
        inputs, out = [folder], tmp_path / "link"
    elif spelling == "hard link":
        os.link(source, out)
    else:
        inputs, out = [save_jpeg(tmp_path / "a.jpg", draw_image((8, 8))), folder / "b.png"], folder
        os.link(source, folder / "b.png")
    with pytest.raises(ConfigError, match=r'a\.png" would overwrite the input|b\.png" would overwrite the input'):
        enhance_files(inputs, out, enhancer)
    assert all(path.read_bytes() == content for path in folder.iterdir())


def test_two_pictures_for_one_name_are_refused_before_any_work(tmp_path, enhancer, draw_image):
    for name in ("x.jpg", "X.webp"):
        save_jpeg(tmp_path / name, draw_image((8, 8)))
    with pytest.raises(ConfigError, match=r'X\.webp" and ".*x\.jpg" would both become'):
        enhance_files([tmp_path], tmp_path / "out", enhancer, saving=PNG)
    assert not (tmp_path / "out").exists()


def test_an_accent_may_be_a_letter_of_its_own(tmp_path, enhancer, draw_image):
    """Names that are one on some file systems."""
    names_of_one = [unicodedata.normalize(form, "\xe9.jpg") for form in ("NFC", "NFD")]
    for folder, name in zip("ab", names_of_one, strict=True):
        (tmp_path / folder).mkdir()
        save_jpeg(tmp_path / folder / name, draw_image((8, 8)))
    with pytest.raises(ConfigError, match="would both become"):
        enhance_files([tmp_path / "a", tmp_path / "b"], tmp_path / "out", enhancer)


def test_the_same_picture_given_twice_is_done_once(tmp_path, enhancer, draw_image):
    source = save_jpeg(tmp_path / "x.jpg", draw_image((8, 8)))
    assert len(enhance_files([source, tmp_path, source], tmp_path / "out", enhancer).of("done")) == 1


def test_outputs_that_cannot_be_are_refused(tmp_path, enhancer, draw_image):
    one, two = (save_jpeg(tmp_path / name, draw_image((8, 8))) for name in ("one.jpg", "two.jpg"))
    with pytest.raises(ConfigError, match=r"cannot write \.ppm; known: jpeg, png"):
        enhance_files([one], tmp_path / "out.ppm", enhancer)
    for name in ("out.jp2", "out.jxl", "out.txt"):
        with pytest.raises(ConfigError, match=rf"cannot write \{name[3:]}; known: jpeg, png"):
            enhance_files([one], tmp_path / name, enhancer)
        assert not (tmp_path / name).exists()
    with pytest.raises(ConfigError, match=r'is named \.jpg but --format asks for "png"'):
        enhance_files([one], tmp_path / "out.jpg", enhancer, saving=PNG)
    with pytest.raises(ConfigError, match=r"where to\? give --out, or"):
        enhance_files([one], None, enhancer)
    with pytest.raises(ConfigError, match=r"where to\? give --out, or"):  # two that are there
        enhance_files([one, one], None, enhancer)
    with pytest.raises(ConfigError, match=r"where to\? give --out, as in --out \"my out.jpg\", or"):
        enhance_files([one, Path("my out.jpg")], None, enhancer)
    with pytest.raises(ConfigError, match="--in-place takes neither"):
        enhance_files([one], tmp_path / "out", enhancer, in_place=True)
    for existing in ("skip", "overwrite"):  # what an earlier run has finished cannot be told
        with pytest.raises(ConfigError, match=r"--in-place replaces all, .* leave them out"):
            enhance_files([one], None, enhancer, in_place=True, existing=existing)
    for name in ("out.png", "out.PNG"):
        with pytest.raises(ConfigError, match="needs a folder"):
            enhance_files([one, two], tmp_path / name, enhancer)
    for suffix in ("-a/b", "-a\\b"):
        with pytest.raises(ConfigError, match="expected a part of a file name, without slashes"):
            enhance_files([one], None, enhancer, suffix=suffix)
    with pytest.raises(ConfigError, match="found a file"):
        enhance_files([one, two], one, enhancer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no pictures found; add -r for those of subfolders$"):
        enhance_files([tmp_path / "empty"], tmp_path / "out", enhancer)
    with pytest.raises(ConfigError, match=r"no pictures found$"):
        enhance_files([tmp_path / "empty"], tmp_path / "out", enhancer, recursive=True)


@pytest.mark.parametrize("name", ["out.v2", "out-1.5"])
def test_a_folder_may_be_named_like_a_file(tmp_path, enhancer, draw_image, name):
    out = tmp_path / name
    if name == "out.v2":  # else it is taken for the name of a file
        out.mkdir()
    enhance_files([save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))], out, enhancer)
    assert names(out) == ["a.jpg"]


def test_names_that_are_not_utf8_are_one_line(tmp_path, enhancer, draw_image):
    odd = tmp_path / os.fsdecode(b"b\xff.jpg")
    try:
        save_jpeg(tmp_path / "a.jpg", draw_image((8, 8))).rename(odd)
    except OSError:
        pytest.skip("a file system that takes no such name")
    save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    result = enhance_files([tmp_path], tmp_path / "out", enhancer)
    assert [o.reason for o in result.of("failed")] == ["its name is not UTF-8; rename it"]
    assert names(tmp_path / "out") == ["a.jpg"]
    with pytest.raises(ImageError, match="its name is not UTF-8; rename it"):
        enhance_files([tmp_path], tmp_path / os.fsdecode(b"\xff"), enhancer)


@pytest.mark.parametrize("format_out", FORMATS)
def test_a_single_gray_pixel_goes_into_every_format(tmp_path, enhancer, format_out):
    Image.new("L", (1, 1), 90).save(tmp_path / "a.png")
    [outcome] = enhance_files([tmp_path / "a.png"], tmp_path / "out", enhancer, saving=Saving(format_out)).outcomes
    assert outcome.reason == ""
    assert read_rgb(outcome.job.target).ravel() == pytest.approx([90] * 3, abs=2)


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk of 64 KiB; only root can mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, enhancer, draw_image, full_disk):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    big, small = save_jpeg(tmp_path / "big.jpg", noise), save_jpeg(tmp_path / "small.jpg", draw_image((20, 20)))
    (full_disk / "big.png").write_bytes(b"the old one")
    # One at a time: beside the big one there would be no room for the small one either.
    result = enhance_files([big, small], full_disk, enhancer, saving=PNG, existing="overwrite", jobs=1)
    [failed] = result.of("failed")
    assert failed.job.source == big
    assert "is the disk full?" in failed.reason
    assert "\n" not in failed.reason
    assert [o.job.source for o in result.of("done")] == [small]
    assert names(full_disk) == ["big.png", "small.png"]
    assert (full_disk / "big.png").read_bytes() == b"the old one"


def test_a_failure_at_the_last_write_leaves_nothing(tmp_path, enhancer, draw_image, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    source = save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    result = enhance_files([source], tmp_path / "out", enhancer)
    assert "No space left on device" in result.of("failed")[0].reason
    assert names(tmp_path) == ["a.jpg"]


def test_results_keep_their_names_or_get_the_format_that_is_asked_for(tmp_path):
    inputs = [tmp_path / name for name in ("a.JPG", "b.webp", "c.gif", "d.tif", "e.HEIC")]

    def targets(*arguments, **options):
        return [str(job.target.relative_to(tmp_path)) for job in plan_jobs(inputs, *arguments, **options)]

    assert targets(tmp_path / "out", Saving()) == ["out/a.JPG", "out/b.webp", "out/c.gif", "out/d.tif", "out/e.HEIC"]
    assert targets(tmp_path / "out", Saving("avif"))[:2] == ["out/a.avif", "out/b.avif"]
    assert targets(None, Saving(), suffix="-better")[:2] == ["a-better.JPG", "b-better.webp"]
    assert targets(None, Saving(), in_place=True)[:2] == ["a.JPG", "b.webp"]
    [job] = plan_jobs(inputs[:1], tmp_path / "new" / "b.png", Saving(), suffix="-better")
    assert (job.target, job.format_out) == (tmp_path / "new" / "b-better.png", "png")


def test_results_that_are_there_are_asked_about(tmp_path, enhancer, draw_image):
    sources = [save_jpeg(tmp_path / f"{k}.jpg", draw_image((9, 9), k)) for k in range(3)]
    out = tmp_path / "out"
    enhance_files(sources[:1], out, enhancer)
    before = (out / "0.jpg").read_bytes()
    (out / "1.jpg").write_bytes(b"old")
    with pytest.raises(ConfigError, match=r"0\.jpg and 1 more exists already; add --overwrite, --skip-existing"):
        enhance_files(sources, out, enhancer)
    result = enhance_files(sources, out, enhancer, existing="skip")
    assert [o.job.source for o in result.of("skipped")] == sources[:2]
    assert (out / "1.jpg").read_bytes() == b"old"
    assert len(enhance_files(sources, out, enhancer, existing="overwrite").of("done")) == 3
    assert (out / "0.jpg").read_bytes() == before


def test_in_place_replaces_the_source_and_what_a_link_points_to(tmp_path, enhancer, draw_image):
    source = save_jpeg(tmp_path / "a.jpg", draw_image((20, 20)))
    (tmp_path / "link.jpg").symlink_to(source)
    before = source.read_bytes()
    enhance_files([tmp_path / "link.jpg"], None, enhancer, in_place=True)
    assert (tmp_path / "link.jpg").is_symlink()
    assert source.read_bytes() != before
    with Image.open(source) as after:
        assert after.format == "JPEG"


def test_several_pictures_at_a_time_give_the_same_files(tmp_path, enhancer, draw_image):
    for k in range(6):
        save_jpeg(tmp_path / f"{k}.jpg", draw_image((30 + k, 40), k))
    for jobs in (1, 3):
        enhance_files([tmp_path], tmp_path / str(jobs), enhancer, jobs=jobs)
    for k in range(6):
        assert (tmp_path / "1" / f"{k}.jpg").read_bytes() == (tmp_path / "3" / f"{k}.jpg").read_bytes()


@pytest.mark.parametrize(("free", "status"), [(2**34, "done"), (None, "done"), (2**32, "failed")])
def test_two_pictures_at_a_time_where_memory_is_roomy(tmp_path, enhancer, draw_image, monkeypatch, free, status):
    for k in range(2):
        save_jpeg(tmp_path / f"{k}.jpg", draw_image((30, 40), k))
    both, look = threading.Barrier(2, timeout=60 if status == "done" else 2), picture._look_at_pages

    def wait_for_the_other(*arguments):
        try:
            both.wait()
        except threading.BrokenBarrierError:
            raise ImageError("came alone") from None
        return look(*arguments)

    monkeypatch.setattr(picture, "_look_at_pages", wait_for_the_other)
    monkeypatch.setattr(files, "memory_bytes", lambda: free)
    result = enhance_files([tmp_path], tmp_path / "out", enhancer)
    assert [outcome.status for outcome in result.outcomes] == [status] * 2


def test_links_that_lead_nowhere_fail_alone(tmp_path, enhancer, draw_image):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_png(folder / "a.png", draw_image((20, 24)))
    for name, leads_to in (("b.png", "b.png"), ("c.png", "gone.png"), ("d", "d"), ("e.txt", "e.txt")):
        (folder / name).symlink_to(leads_to)
    result = enhance_files([folder], tmp_path / "out", enhancer)
    told = {outcome.job.source.name: (outcome.status, outcome.reason) for outcome in result.outcomes}
    nowhere = ("failed", "is a link that leads nowhere")
    assert told == {"a.png": ("done", ""), "b.png": nowhere, "c.png": nowhere}
    inputs = [folder / "a.png", folder / "b.png", folder / "d", folder / "d" / "f.png"]
    result = enhance_files(inputs, tmp_path / "other", enhancer)
    assert [outcome.status for outcome in result.outcomes] == ["done", "failed", "failed", "failed"]
    result = enhance_files([folder / "b.png"], None, enhancer, in_place=True)
    assert [outcome.status for outcome in result.outcomes] == ["failed"]
    assert (folder / "b.png").is_symlink()
    result = enhance_files([folder / "a.png"], folder / "d", enhancer)
    assert [outcome.status for outcome in result.outcomes] == ["failed"]


def test_an_interrupt_leaves_finished_files_and_nothing_else(tmp_path, tiny_model, draw_image):
    small = save_jpeg(tmp_path / "a.jpg", draw_image((20, 20)))
    big = save_jpeg(tmp_path / "b.jpg", draw_image((900, 900)))

    class Interrupt(BatchProgress):
        def finished(self, _):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enhance_files([small, big], tmp_path / "out", Enhancer(tiny_model, tile_px=16), progress=Interrupt())
    assert names(tmp_path / "out") == ["a.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no Ctrl-C for one process alone")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 warns of every such fork
def test_an_impatient_ctrl_c_leaves_nothing_either(tmp_path, draw_image):
    """The second one arrives while the first is obeyed: the network is still at work on a tile."""
    write_png(tmp_path / "a.png", np.tile(draw_image((300, 400)), (12, 9, 1)))  # which takes seconds to enhance
    words = [sys.executable, "-m", "subjectiveqe", "enhance", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    words += ["--runtime", "onnxruntime", "--tile", "200", "--quiet"]
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # it does not if the tests run in the background
    run = subprocess.Popen(words, stderr=subprocess.PIPE, preexec_fn=hears)
    while run.poll() is None and not list((tmp_path / "out").glob(".*")):
        time.sleep(0.01)
    for _ in range(3):
        run.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, errors = run.communicate(timeout=60)
    assert errors == b""
    assert run.returncode == 130
    assert names(tmp_path / "out") == []


def test_what_is_replaced_keeps_its_rights_and_what_cannot_be_written_stays(tmp_path, enhancer, draw_image):
    source = save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    source.chmod(0o600)
    enhance_files([source], None, enhancer, in_place=True)
    if os.name == "posix":
        assert stat.S_IMODE(source.stat().st_mode) == 0o600
    gray_map = tmp_path / "b.pgm"
    gray_map.write_bytes(b"P5 2 2 255\n1234")
    before = gray_map.read_bytes()
    outcome = enhance_files([gray_map], None, enhancer, in_place=True).of("failed")[0]
    assert outcome.reason == "ppm is read and not written, so it cannot be replaced; give --out or --suffix"
    assert gray_map.read_bytes() == before


@pytest.fixture
def on_windows(monkeypatch):
    """No file is deleted or replaced that is open in this process or read-only, and text has Windows' ends of lines."""

    def check(path):
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        if path in links or (path.exists() and not path.stat().st_mode & stat.S_IWUSR):
            raise PermissionError(errno.EACCES, "Access is denied", str(path))

    unlink, replace, write, access = Path.unlink, Path.replace, Path.write_text, os.access
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: check(path) or unlink(path, missing_ok))
    monkeypatch.setattr(Path, "replace", lambda path, to: check(path) or check(to) or replace(path, to))
    monkeypatch.setattr(  # root may write everything
        os, "access", lambda path, mode: access(path, mode) and bool(Path(path).stat().st_mode & stat.S_IWUSR)
    )
    monkeypatch.setattr(
        Path, "write_text", lambda path, text, newline="\r\n", **kw: write(path, text, newline=newline, **kw)
    )
    monkeypatch.setattr("subjectiveqe.files._PATIENCE_S", 0.2)


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux says which files are open")


@ON_LINUX
@pytest.mark.usefixtures("on_windows")
def test_windows_replaces_no_file_that_is_read_only(tmp_path, enhancer, draw_image):
    source = save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    before = source.read_bytes()
    source.chmod(0o444)
    [outcome] = enhance_files([source], None, enhancer, in_place=True).of("failed")
    assert outcome.reason == "cannot be written (is read-only)"
    assert names(tmp_path) == ["a.jpg"]
    assert source.read_bytes() == before
    assert enhance_files([source], tmp_path / "out", enhancer).of("done")


@ON_LINUX
@pytest.mark.usefixtures("on_windows")
def test_a_picture_that_cannot_be_read_to_its_end_leaves_nothing_on_windows(tmp_path, enhancer, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    source, out = save_jpeg(tmp_path / "a.jpg", noise), tmp_path / "out"

    def fail(*_):
        yield noise[:200]
        raise ImageError("no more rows")

    monkeypatch.setattr(picture, "_pages", fail)
    for name in ("png", "tiff", "jpeg", "webp"):
        [failed] = enhance_files([source], out, enhancer, saving=Saving(name)).of("failed")
        assert failed.reason == "no more rows"
        assert names(out) == []


@ON_LINUX
@pytest.mark.usefixtures("on_windows")
def test_the_error_of_a_block_is_told_where_its_file_cannot_be_deleted(tmp_path):
    def write():
        with atomic_path(tmp_path / "a") as aside:
            aside.chmod(0o444)
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        write()


@pytest.mark.parametrize(("platform", "tries"), [("win32", 3), ("linux", 1)])
def test_a_file_that_a_virus_scanner_reads_is_replaced_a_little_later(tmp_path, monkeypatch, platform, tries):
    replace, tried = Path.replace, []

    def refuse_twice(path, to):
        tried.append(path)
        if len(tried) < 3:
            raise PermissionError(errno.EACCES, "Access is denied", str(path))
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", refuse_twice)
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "win32":
        write_text(tmp_path / "a", "text")
        assert names(tmp_path) == ["a"]
    else:
        with pytest.raises(PermissionError):
            write_text(tmp_path / "a", "text")
        assert names(tmp_path) == []
    assert len(tried) == tries


@ON_LINUX
@pytest.mark.usefixtures("on_windows")
def test_lines_end_alike_everywhere(tmp_path):
    write_text(tmp_path / "a", "one\ntwo\n")
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"


def test_a_copy_of_standard_input_that_cannot_be_deleted_is_no_error(tmp_path, enhancer, draw_image, monkeypatch):
    unlink, source = os.unlink, save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))

    def refuse(path, **options):
        if os.fspath(path).endswith("standard input"):
            raise PermissionError(errno.EACCES, "Access is denied", str(path))
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with source.open("rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        enhance_stream(Path("-"), tmp_path / "b.jpg", enhancer, Saving())
    assert (tmp_path / "b.jpg").exists()


@ON_LINUX
def test_no_copy_of_standard_input_is_open_when_it_is_deleted(tmp_path, enhancer, draw_image, monkeypatch):
    source, still_open = save_jpeg(tmp_path / "a.jpg", draw_image((400, 400))), []
    rmtree = files.tempfile._shutil.rmtree

    def look(path, *args, **options):
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        still_open.extend(link for link in links if link.is_relative_to(path))
        still_open.extend(line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line)
        rmtree(path, *args, **options)

    monkeypatch.setattr("tempfile._shutil.rmtree", look)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cut = source.read_bytes()[:-2000]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(cut)))
    with pytest.raises(ImageError, match=r"^standard input: "):
        enhance_stream(Path("-"), tmp_path / "b.jpg", enhancer, Saving())
    assert still_open == []


def test_an_interrupt_is_heard_again_afterwards():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with files._deaf_to_interrupts():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_is_not_pythons_stays(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    set_one = signal.signal
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_one(number, handler) and None)
    try:
        with files._deaf_to_interrupts():
            pass
    finally:
        monkeypatch.undo()
        after = signal.signal(signal.SIGINT, before)
    assert after == before


def test_the_tests_have_a_cache_of_their_own(tmp_path_factory):
    assert cache_folder().is_relative_to(tmp_path_factory.getbasetemp())


def test_what_goes_in_place_has_the_options_of_what_it_is_and_not_of_its_name(tmp_path, enhancer, draw_image):
    misnamed = save_jpeg(tmp_path / "a.jpg", draw_image((8, 8))).rename(tmp_path / "a.png")
    before = misnamed.read_bytes()
    [failed] = enhance_files([misnamed], None, enhancer, saving=Saving(lossless=True), in_place=True).of("failed")
    assert "JPEG has no lossless mode here" in failed.reason
    assert misnamed.read_bytes() == before
    [done] = enhance_files([misnamed], None, enhancer, saving=Saving(quality=50), in_place=True).of("done")
    assert sniff_format(done.job.target) == "jpeg"


def test_a_mixed_folder_takes_the_options_of_some(tmp_path, enhancer, draw_image):
    write_png(tmp_path / "in" / "a.png", draw_image((8, 8)))
    save_jpeg(tmp_path / "in" / "b.jpg", draw_image((8, 8)))
    write_png(tmp_path / "in" / "c.png", draw_image((8, 8)))
    result = enhance_files([tmp_path / "in"], tmp_path / "out", enhancer, saving=Saving(quality=50, chroma="420"))
    assert len(result.of("done")) == 3


def test_a_jpeg_is_not_made_where_lossless_was_asked_for(tmp_path, enhancer, draw_image):
    source = save_jpeg(tmp_path / "a.jpg", draw_image((8, 8)))
    for out in (tmp_path / "b.jpg", tmp_path / "out"):
        with pytest.raises(ConfigError, match=r"JPEG has no lossless mode here; name it \.png"):
            enhance_files([source], out, enhancer, saving=Saving(lossless=True))
    assert names(tmp_path) == ["a.jpg"]
