"""Making a store: what gets into it, and what is left when the run is killed or the disk is full."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from PIL import Image

from subjectiveqe.codecs import Jpeg, WebP
from subjectiveqe.data import prepare as prepare_module
from subjectiveqe.data import writer
from subjectiveqe.data.prepare import prepare
from subjectiveqe.data.store import DATA, INDEX, JOURNAL, check_store, open_pairs, read_index, write_index
from subjectiveqe.errors import CodecError, ConfigError, StoreError
from subjectiveqe.files import sha256_of
from subjectiveqe.images import write_png

LAYOUTS = pytest.mark.parametrize("layout", ["lmdb", "png"])
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for processes and open files")


@pytest.fixture(scope="module")
def clean(tmp_path_factory, draw_image):
    """A folder of 24 pictures, 45x51 px."""
    folder = tmp_path_factory.mktemp("clean")
    for seed in range(24):
        write_png(folder / f"{seed:02}.png", draw_image((45, 51), seed))
    return folder


@pytest.fixture
def coded(monkeypatch):
    """Notes every picture that is coded as JPEG in this process, but for the trial at the start."""
    calls = []
    code = Jpeg.code

    def noting(self, rgb, level):
        if rgb.shape != (64, 64, 3):
            calls.append(level)
        return code(self, rgb, level)

    monkeypatch.setattr(Jpeg, "code", noting)
    return calls


def contents(store):
    pairs = open_pairs(store)
    return [(info, *(picture.tobytes() for picture in pairs.read(n))) for n, info in enumerate(pairs.infos)]


def levels_by_name(store):
    by_name = {}
    for info in open_pairs(store).infos:
        by_name.setdefault(info.name, []).append(info.level)
    return by_name


def test_png_folders_equal_the_lmdb_store_pixel_for_pixel(tmp_path, clean):
    for layout in ("lmdb", "png"):
        result = prepare(clean, tmp_path / layout, "jpeg", [10, 50], layout=layout, jobs=1)
        assert (result.done, result.pictures, result.skipped) == (48, 24, ())
    assert contents(tmp_path / "lmdb") == contents(tmp_path / "png")
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == ["gt", INDEX, "lq"]
    assert sorted(path.name for path in (tmp_path / "lmdb").iterdir()) == [DATA, INDEX]
    assert len(list((tmp_path / "png" / "gt").iterdir())) == 24
    assert (tmp_path / "png" / "lq" / "00.png__jpeg-10.png").is_file()


@LAYOUTS
def test_worker_processes_make_the_same_store(tmp_path, clean, layout):
    seen = []
    for jobs in (1, 2):
        out = tmp_path / f"{jobs}"
        prepare(
            clean, out, "jpeg", range(10, 91), draws=2, layout=layout, jobs=jobs, progress=lambda *n: seen.append(n)
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert seen == [(n, 24) for n in range(25)] * 2
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_levels_of_a_range_are_drawn_by_seed_and_name(tmp_path, clean):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("03.png", "17.png"):
        shutil.copy(clean / name, few)
    one, again, other, part = (tmp_path / name for name in ("one", "again", "other", "part"))
    prepare(clean, one, "jpeg", range(20, 31), draws=3, seed=1, jobs=1)
    prepare(clean, again, "jpeg", range(20, 31), draws=3, seed=1, jobs=1)
    prepare(clean, other, "jpeg", range(20, 31), draws=3, seed=2, jobs=1)
    prepare(few, part, "jpeg", range(20, 31), draws=3, seed=1, jobs=1)
    drawn = levels_by_name(one)
    assert drawn == levels_by_name(again)
    assert drawn != levels_by_name(other)
    assert levels_by_name(part) == {name: drawn[name] for name in ("03.png", "17.png")}
    assert all(len(set(levels)) == 3 for levels in drawn.values())
    assert {level for levels in drawn.values() for level in levels} == set(range(20, 31))


def test_a_run_that_differs_in_what_has_no_say_finds_the_store(tmp_path, clean):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(clean / "03.png", few)
    made = prepare(few, tmp_path / "out", "jpeg", [50], jobs=1)
    assert prepare(few, tmp_path / "out", "jpeg", [50], seed=7, draws=3, hold_out_every=10, jobs=1) == made


def test_every_nth_picture_is_held_out(tmp_path, clean):
    for split in ("train", "valid"):
        prepare(clean, tmp_path / split, "jpeg", [50], split=split, hold_out_every=10, jobs=1)
    train, valid = ([info.name for info in open_pairs(tmp_path / split).infos] for split in ("train", "valid"))
    assert valid == ["09.png", "19.png"]
    assert sorted(train + valid) == [f"{n:02}.png" for n in range(24)]
    with pytest.raises(ConfigError, match='too few pictures for split "valid" with one in 25 held out'):
        prepare(clean, tmp_path / "none", "jpeg", [50], split="valid", hold_out_every=25)


SLOW_RUN = """
import sys, time
from pathlib import Path
from subjectiveqe.codecs import Jpeg
from subjectiveqe.data.prepare import prepare

code, coded = Jpeg.code, []

def halt_at_the_eleventh(self, rgb, level):
    coded.append(level)
    time.sleep(600 if len(coded) > 10 else 0)
    return code(self, rgb, level)

Jpeg.code = halt_at_the_eleventh  # in workers too, which import this file

if __name__ == "__main__":
    source, out, layout, jobs = sys.argv[1:]
    prepare(Path(source), Path(out), "jpeg", [10, 50], layout=layout, jobs=int(jobs))
"""


def kill_midway(script, clean, out, layout, jobs):
    """Starts a real run and kills it once three pictures are finished; gives how many were, and its workers' ids."""
    run = subprocess.Popen([sys.executable, str(script), str(clean), str(out), layout, str(jobs)])
    journal = out / JOURNAL
    while run.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 4):
        time.sleep(0.01)
    assert run.poll() is None, "the run ended before it could be killed"
    workers = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    run.kill()
    run.wait()
    return journal.read_bytes().count(b"\n") - 1, workers


@ON_LINUX
@LAYOUTS
def test_a_killed_run_is_continued_without_coding_finished_pictures_again(tmp_path, clean, coded, layout):
    out, script = tmp_path / "store", tmp_path / "slow_run.py"
    script.write_text(SLOW_RUN)
    finished, _ = kill_midway(script, clean, out, layout, jobs=1)
    with pytest.raises(StoreError) as caught:
        open_pairs(out)
    why = f'{finished} of 24 images, the run that wrote it was interrupted; run "sqe prepare" again to finish it.'
    assert str(caught.value) == f"{out}: {why}"

    with (out / JOURNAL).open("ab") as journal:
        journal.write(b'{"name": "2')  # a line that a crash cut off
    if layout == "png":
        (out / "lq" / ".05.png__jpeg-10.png.x1y2.png").write_bytes(b"half a picture")
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.png") if path.name < f"{finished:02}"}
    seen = []
    result = prepare(clean, out, "jpeg", [10, 50], layout=layout, jobs=1, progress=lambda *n: seen.append(n))
    assert result.done == 48
    assert len(coded) == 2 * (24 - finished)
    assert seen[0] == (finished, 24)
    assert all(path.stat().st_mtime_ns == before for path, before in files.items() if path.exists())
    assert not list(out.rglob(".*"))

    prepare(clean, tmp_path / "whole", "jpeg", [10, 50], layout=layout, jobs=1)
    assert contents(out) == contents(tmp_path / "whole")
    assert check_store(out) == 48


def test_a_run_may_be_cut_off_again_and_again(tmp_path, clean, coded):
    for last in (2, 4, 6):

        def stop(done, _, last=last):
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1, progress=stop)
        with (tmp_path / "store" / JOURNAL).open("ab") as journal:
            journal.write(b'{"name": "2')
    assert prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1).done == len(coded) == 24
    assert check_store(tmp_path / "store") == 24


def test_a_picture_that_nobody_may_read_counts_by_its_name(tmp_path, clean, monkeypatch):
    digest = sha256_of

    def refuse(path):
        if path.name == "03.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return digest(path)

    monkeypatch.setattr("subjectiveqe.files.sha256_of", refuse)
    for _ in range(2):
        assert prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1).pictures == 24


@ON_LINUX
def test_workers_end_with_a_killed_run(tmp_path, clean):
    script = tmp_path / "slow_run.py"
    script.write_text(SLOW_RUN)
    _, workers = kill_midway(script, clean, tmp_path / "store", "lmdb", jobs=2)
    assert len(workers) >= 2
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)
    assert prepare(clean, tmp_path / "store", "jpeg", [10, 50], jobs=1).pictures == 24


@ON_LINUX
def test_ctrl_c_waits_while_workers_start_whatever_thread_it_comes_to():
    done = threading.Event()
    other = threading.Thread(target=done.wait)  # which does not hold the signal back
    other.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    steps = []

    def start():
        with prepare_module._interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            steps.append("started")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
        other.join()
    assert steps == ["started"]


@ON_LINUX
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 warns of every such fork
def test_ctrl_c_ends_a_run_without_a_word(tmp_path, clean):
    words = [sys.executable, "-m", "subjectiveqe", "prepare", str(clean), "-o", str(tmp_path / "store"), "--jobs", "2"]
    words += ["--codec", "hevc", *(f"--level={level}" for level in range(0, 51, 5))]
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # it does not if the tests run in the background
    run = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=hears)
    while run.poll() is None and not (tmp_path / "store" / DATA).exists():
        time.sleep(0.01)
    time.sleep(0.3)  # into the start of the workers
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the workers as well
    _, errors = run.communicate(timeout=60)
    assert errors == b""
    assert run.returncode == 130
    with pytest.raises(StoreError, match="of 24 images, the run that wrote it was interrupted"):
        open_pairs(tmp_path / "store")


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_complete_store_is_not_made_again(tmp_path, clean, coded):
    first = prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1)
    before = (tmp_path / "store" / DATA).stat().st_mtime_ns
    coded.clear()
    assert prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1) == first
    assert not coded
    assert (tmp_path / "store" / DATA).stat().st_mtime_ns == before


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_store_of_other_settings_is_refused(tmp_path, clean, is_complete):
    out = tmp_path / "store"
    prepare(clean, out, "jpeg", [50], jobs=1)
    if not is_complete:
        settings = json.loads((out / INDEX).read_text())["content"]["settings"]
        (out / JOURNAL).write_text(json.dumps({"version": 1, "settings": settings}) + "\n")
        (out / INDEX).unlink()
    for arguments, why in [
        (("webp", [50], {}), 'codec "jpeg", not "webp"'),
        (("jpeg", [50, 60], {}), r"levels \[50\], not \[50, 60\]"),
        (("jpeg", [50], {"chroma": "444"}), 'options {"chroma": "420"}, not {"chroma": "444"}'),
        (("jpeg", [50], {"layout": "png"}), 'layout "lmdb", not "png"'),
        (("jpeg", [50], {"split": "train"}), 'split "all", not "train"'),
    ]:
        codec, levels, options = arguments
        with pytest.raises(StoreError, match=f"was made from {why}; choose another name or delete it"):
            prepare(clean, out, codec, levels, jobs=1, **options)
    more = shutil.copytree(clean, tmp_path / "more")
    shutil.copy(clean / "00.png", more / "99.png")
    with pytest.raises(StoreError, match="was made from 24 pictures, other than the 25 there are now"):
        prepare(more, out, "jpeg", [50], jobs=1)
    assert prepare(clean, out, "jpeg", [50], jobs=1).done == 24


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_picture_of_the_same_name_and_size_with_other_contents_is_noticed(tmp_path, clean, is_complete):
    source, out = shutil.copytree(clean, tmp_path / "source"), tmp_path / "store"
    prepare(source, out, "jpeg", [50], jobs=1)
    if not is_complete:
        settings = json.loads((out / INDEX).read_text())["content"]["settings"]
        (out / JOURNAL).write_text(json.dumps({"version": 1, "settings": settings}) + "\n")
        (out / INDEX).unlink()
    content = bytearray((source / "05.png").read_bytes())
    content[len(content) // 2] ^= 1
    (source / "05.png").write_bytes(content)
    with pytest.raises(StoreError, match="was made from 24 pictures, other than the 24 there are now"):
        prepare(source, out, "jpeg", [50], jobs=1)


def test_a_store_from_before_contents_were_checked_opens_and_is_not_gone_on_with(tmp_path, clean):
    out = tmp_path / "store"
    prepare(clean, out, "jpeg", [50], jobs=1)
    index = read_index(out)
    settings = {**index.settings, "sources": "0" * 32}
    del settings["sources_sha256"]
    write_index(out, replace(index, settings=settings))
    assert len(open_pairs(out)) == check_store(out) == 24
    why = r"store: was made from pictures of which it has no checksum .*; choose another name or delete it"
    with pytest.raises(StoreError, match=why):
        prepare(clean, out, "jpeg", [50], jobs=1)


def test_a_store_of_another_encoder_setup_is_refused(tmp_path, clean, monkeypatch):
    from subjectiveqe.codecs import hevc

    prepare(clean, tmp_path / "store", "hevc", [37], jobs=1)
    monkeypatch.setitem(hevc.HM_LIKE, "rdoq-level", 2)
    with pytest.raises(StoreError, match=r'options {"rdoq-level": "1"}, not {"rdoq-level": "2"}'):
        prepare(clean, tmp_path / "store", "hevc", [37], jobs=1)


def test_a_second_run_at_the_same_time_is_refused(tmp_path, clean):
    def second_run(*_):
        with pytest.raises(ConfigError, match="another run is writing this store"):
            prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1)

    prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1, progress=second_run)


def test_lmdb_gets_more_room_when_its_map_is_full(tmp_path, clean, monkeypatch):
    monkeypatch.setattr(writer, "FIRST_MAP_BYTES", 2**15)  # less than one picture takes
    prepare(clean, tmp_path / "store", "jpeg", [50], jobs=1)
    assert (tmp_path / "store" / DATA).stat().st_size > 10 * writer.FIRST_MAP_BYTES
    assert check_store(tmp_path / "store") == 24


def test_a_map_that_cannot_grow_is_a_full_disk(tmp_path, draw_image):
    """On Windows, where the file grows with it, and where addresses are limited."""

    def refuse(_):
        raise lmdb.MemoryError("no room")

    with lmdb.open(str(tmp_path), map_size=2**15) as env:
        full = SimpleNamespace(begin=env.begin, info=env.info, set_mapsize=refuse)
        with pytest.raises(OSError, match="no room"):
            writer._put(full, {b"a": draw_image((100, 200))})
        writer._put(full, {b"a": draw_image((4, 4))})


def test_the_file_of_an_lmdb_store_is_no_longer_than_what_is_in_it(tmp_path, clean, monkeypatch):
    """Windows makes it as long as it may ever become."""
    used = writer._bytes_used

    def used_of_a_long_file(env):
        with (tmp_path / "long" / DATA).open("rb+") as file:
            file.truncate(2**30)
        return used(env)

    prepare(clean, tmp_path / "usual", "jpeg", [50], jobs=1)
    monkeypatch.setattr(writer, "_bytes_used", used_of_a_long_file)
    prepare(clean, tmp_path / "long", "jpeg", [50], jobs=1)
    assert (tmp_path / "long" / DATA).stat().st_size == (tmp_path / "usual" / DATA).stat().st_size
    assert check_store(tmp_path / "long") == 24


def test_a_folder_of_other_things_is_left_alone(tmp_path, clean):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, clean, tmp_path / "notes.txt"):
        with pytest.raises(StoreError, match="is there already and is no paired store; choose another name"):
            prepare(clean, out, "jpeg", [50], jobs=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("layout", "jobs"), [("lmdb", 2), ("png", 1)])
def test_pictures_that_cannot_be_read_are_listed_and_skipped(tmp_path, draw_image, layout, jobs):
    source, out = tmp_path / "source", tmp_path / "store"
    for seed in range(2):
        write_png(source / f"good{seed}.png", draw_image((24, 24), seed))
    write_png(source / "tiny.png", draw_image((24, 7)))
    write_png(source / "cut.png", draw_image((64, 64)))
    os.truncate(source / "cut.png", 900)
    (source / "empty.png").touch()
    (source / "text.jpg").write_text("no picture")
    result = prepare(source, out, "jpeg", [50], layout=layout, jobs=jobs)
    assert (result.done, result.pictures) == (2, 2)
    assert [path for path, _ in result.skipped] == [
        source / n for n in ("cut.png", "empty.png", "text.jpg", "tiny.png")
    ]
    assert all(reason and "\n" not in reason for _, reason in result.skipped)
    assert "at least 8x8 px expected, got 7x24" in result.skipped[3][1]
    assert len(open_pairs(out)) == 2
    assert prepare(source, out, "jpeg", [50], layout=layout, jobs=jobs) == result


@pytest.mark.parametrize(("jobs", "other"), [(1, "a.png"), (1, "z.png"), (2, "z.png")])
def test_a_picture_whose_name_leaves_no_room_for_its_level_is_skipped(tmp_path, draw_image, jobs, other):
    source, long = tmp_path / "source", "x" * 240 + ".png"  # 255 bytes are what a name may have
    for name in (other, long):
        write_png(source / name, draw_image((24, 24)))
    result = prepare(source, tmp_path / "store", "jpeg", [50], layout="png", jobs=jobs)
    assert (result.done, [path.name for path, _ in result.skipped]) == (1, [long])
    assert "its name is too long for the store's files" in result.skipped[0][1]
    assert [path.name for path in (tmp_path / "store" / "gt").iterdir()] == [f"{other}.png"]
    assert prepare(source, tmp_path / "lmdb", "jpeg", [50], jobs=1).done == 2


def test_nothing_is_left_when_no_picture_can_be_coded(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "text.png").write_text("no picture")
    with pytest.raises(
        ConfigError, match=r'none of 1 pictures could be coded; the first, "text\.png": .*cannot be read'
    ):
        prepare(source, tmp_path / "store", "jpeg", [50], jobs=1)
    assert not (tmp_path / "store").exists()


@pytest.fixture
def as_windows_deletes(monkeypatch):
    """Nothing that is open in this process can be deleted."""

    def check(path):
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
        if any(link.is_relative_to(path) for link in links):
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))

    unlink, rmtree = Path.unlink, shutil.rmtree
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: check(path) or unlink(path, missing_ok))
    monkeypatch.setattr(shutil, "rmtree", lambda path, *args, **options: check(path) or rmtree(path, *args, **options))


@ON_LINUX
@LAYOUTS
@pytest.mark.usefixtures("as_windows_deletes")
def test_no_file_is_open_when_it_is_deleted(tmp_path, clean, layout):
    """Windows deletes none that is."""
    assert prepare(clean, tmp_path / "store", "jpeg", [50], layout=layout, jobs=1).done == 24
    assert not (tmp_path / "store" / JOURNAL).exists()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "text.png").write_text("no picture")
    with pytest.raises(ConfigError, match="none of 1 pictures could be coded"):
        prepare(tmp_path / "source", tmp_path / "none", "jpeg", [50], layout=layout, jobs=1)
    assert not (tmp_path / "none").exists()


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no pictures in this folder; expected one of clean pictures"):
        prepare(tmp_path, tmp_path / "store", "jpeg", [50])
    with pytest.raises(ConfigError, match="no such folder"):
        prepare(tmp_path / "nowhere", tmp_path / "store", "jpeg", [50])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("codec", "levels", "options", "error", "why"),
    [
        ("jpg", [50], {}, ConfigError, 'did you mean "jpeg"'),
        ("jpeg", [0], {}, CodecError, r"qf must be 1\.\.100, got 0"),
        ("hevc", range(40, 60), {}, CodecError, r"qp must be 0\.\.51, got 52"),
        ("jpeg", [], {}, ConfigError, r"levels: expected one or more different ones, got \[\]"),
        ("jpeg", [50, 50], {}, ConfigError, r"different ones, got \[50, 50\]"),
        ("jpeg", range(10, 12), {"draws": 3}, ConfigError, r"draws: expected 1\.\.2"),
        ("jpeg", [50], {"layout": "zip"}, ConfigError, 'layout: expected one of lmdb, png, got "zip"'),
        ("jpeg", [50], {"split": "test"}, ConfigError, 'split: expected one of all, train, valid, got "test"'),
        ("jpeg", [50], {"jobs": -1}, ConfigError, r"jobs: expected 0 \(one per core\) or more, got -1"),
        ("jpeg", [50], {"hold_out_every": 1}, ConfigError, "hold_out_every: expected 2 or more, got 1"),
        ("hm", [37], {"encoder": "missing"}, (CodecError, ConfigError), "missing"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_before_anything_is_made(
    tmp_path, clean, codec, levels, options, error, why
):
    if "encoder" in options:
        options = {"encoder": tmp_path / options["encoder"], "config": tmp_path / "hm.cfg"}
    with pytest.raises(error, match=why):
        prepare(clean, tmp_path / "store", codec, levels, **options)
    assert not (tmp_path / "store").exists()


@contextmanager
def files_limited_to(num_bytes):
    """No file may grow beyond this; a write past it fails as on a full disk, with another error number."""
    resource = pytest.importorskip("resource", reason="no such limit on Windows")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_store_that_cannot_grow_is_one_line_and_can_be_continued(tmp_path, clean, coded):
    out = tmp_path / "store"
    with files_limited_to(100_000), pytest.raises(StoreError) as caught:
        prepare(clean, out, "jpeg", [50], jobs=1)
    assert "\n" not in str(caught.value)
    assert 'make room and run "sqe prepare" again to continue' in str(caught.value)
    with pytest.raises(StoreError, match="of 24 images, the run that wrote it was interrupted"):
        open_pairs(out)
    before = len(coded)
    assert prepare(clean, out, "jpeg", [50], jobs=1).done == 24
    assert before > 1
    assert len(coded) == 24 + 1  # only the picture that did not fit was coded twice
    assert check_store(out) == 24


@pytest.mark.parametrize(("layout", "jobs"), [("lmdb", 1), ("png", 2)])
def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_complete(tmp_path, clean, layout, jobs):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(StoreError) as caught:
            prepare(clean, disk / "store", "jpeg", [10, 50], layout=layout, jobs=jobs)
        assert "cannot be written" in str(caught.value)
        assert "again to continue" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (disk / "store" / INDEX).exists()
        with pytest.raises(StoreError):
            open_pairs(disk / "store")
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        prepare(clean, disk / "store", "jpeg", [10, 50], layout=layout, jobs=1)
        assert check_store(disk / "store") == 48
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_damaged_journal_is_refused(tmp_path, clean):
    out = tmp_path / "store"
    out.mkdir()
    (out / JOURNAL).write_bytes(b"something else\n")
    with pytest.raises(StoreError, match=r"progress\.jsonl: damaged; delete"):
        prepare(clean, out, "jpeg", [50], jobs=1)
    with pytest.raises(StoreError, match=r"progress\.jsonl is damaged; delete the folder"):
        open_pairs(out)


@pytest.mark.parametrize("by_pillow", [True, False])
def test_pictures_too_large_for_a_codec_or_memory_are_skipped(tmp_path, draw_image, monkeypatch, by_pillow):
    code = Jpeg.code

    def code_within_memory(self, rgb, level):
        if rgb.shape[0] > 64:
            raise MemoryError
        return code(self, rgb, level)

    folder = tmp_path / "in"
    write_png(folder / "large.png", draw_image((128, 128)))
    write_png(folder / "small.png", draw_image((64, 64)))
    if by_pillow:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)  # twice as many are refused
    else:
        monkeypatch.setattr(Jpeg, "code", code_within_memory)
    result = prepare(folder, tmp_path / "store", "jpeg", [50], jobs=1)
    [(path, reason)] = result.skipped
    assert path.name == "large.png"
    assert reason.startswith("jpeg: cannot decode" if by_pillow else "not enough memory")


def test_a_codec_that_fails_on_one_picture_skips_it(tmp_path, clean, monkeypatch):
    code = WebP.code
    failed = []

    def failing(self, rgb, level):
        if rgb.shape[0] == 40 and not failed:
            failed.append(1)
            raise CodecError("webp: out of order")
        return code(self, rgb, level)

    monkeypatch.setattr(WebP, "code", failing)
    result = prepare(clean, tmp_path / "store", "webp", [50], jobs=1)
    assert result.skipped == ((clean / "00.png", "webp: out of order"),)
    assert result.done == 23
    assert np.array_equal(open_pairs(tmp_path / "store").read(0)[1].shape, (40, 48, 3))


def test_where_nothing_can_be_coded_a_link_stays_one(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="none of 1 pictures could be coded"):
        prepare(tmp_path / "bad", tmp_path / "link", "jpeg", [30], jobs=1)
    assert list((tmp_path / "link").iterdir()) == []
