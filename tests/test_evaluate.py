"""Evaluation measures what it saves, lists what fails, and the report needs nothing but itself."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import json
import math
import os
import re
from typing import ClassVar

import numpy as np
import pytest

from subjectiveqe.cli import main
from subjectiveqe.data.pairs import PairInfo, pair_folders
from subjectiveqe.data.prepare import prepare
from subjectiveqe.data.store import check_store
from subjectiveqe.errors import ConfigError, ImageError, StoreError, SubjectiveQEError, WeightsError
from subjectiveqe.evaluating import evaluate as module
from subjectiveqe.evaluating.bdrate import bd_rate
from subjectiveqe.evaluating.evaluate import evaluate, open_sets
from subjectiveqe.evaluating.measures import MEASURES, is_better
from subjectiveqe.evaluating.report import SHOWN_PX, Table, compare, write_report
from subjectiveqe.evaluating.write import describe_machine
from subjectiveqe.files import held
from subjectiveqe.images import read_rgb, write_png
from subjectiveqe.metrics import lpips, psnr


@dataclasses.dataclass
class Pairs:
    """Pairs in memory; `broken` ones cannot be read."""

    infos: list[PairInfo]
    pictures: list[tuple[np.ndarray, np.ndarray]]
    broken: tuple[int, ...] = ()

    def __len__(self):
        return len(self.infos)

    def read(self, index):
        if index in self.broken:
            raise StoreError(f"pair {index} is damaged")
        return self.pictures[index]


def draw_pairs(levels=(10, 40), count=2, size=(40, 48), broken=()):
    infos, pictures = [], []
    for k in range(count):
        rng = np.random.default_rng(k)
        gt = rng.integers(0, 256, (*size, 3), np.uint8)
        for level in levels:
            lq = np.clip(gt + rng.normal(0, 400 / level, gt.shape), 0, 255).astype(np.uint8)
            infos.append(PairInfo(f"picture{k}.png", "jpeg", level, 100 * level + k, *size))
            pictures.append((lq, gt))
    return Pairs(infos, pictures, broken)


def brighten(image):
    return np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_measures_of_the_saved_pictures(tmp_path):
    pairs = draw_pairs()
    steps = []
    summary = evaluate(
        brighten, {"noise": pairs}, tmp_path, save_images=True, progress=lambda *step: steps.append(step)
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert summary.failed == []
    rows = read_csv(summary.csv)
    assert [(row["name"], row["level"], row["bytes"]) for row in rows[:2]] == [
        ("picture0.png", "10", "1000"),
        ("picture0.png", "40", "4000"),
    ]
    for row, (lq, gt) in zip(rows, pairs.pictures, strict=True):
        saved = read_rgb(tmp_path / "images" / "noise" / f"{row['name']}__jpeg-{row['level']}.png")
        assert float(row["out_psnr_db"]) == pytest.approx(psnr(saved, gt), abs=1e-5)
        assert float(row["out_lpips"]) == pytest.approx(lpips(saved, gt), abs=1e-5)
        assert float(row["out_lpips_legacy"]) == pytest.approx(lpips(saved, gt, legacy=True), abs=1e-5)
        assert float(row["lq_psnr_db"]) == pytest.approx(psnr(lq, gt), abs=1e-5)
        assert float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (40 * 48), abs=1e-5)
        assert float(row["seconds_per_mp"]) > 0
        assert "lq_dists" not in row


def test_the_summary_holds_means_per_set_codec_and_level(tmp_path):
    sets = {"a": draw_pairs(), "b": draw_pairs(levels=(10,), count=1)}
    summary = evaluate(brighten, sets, tmp_path, facts={"command": "sqe evaluate a b"})
    content = json.loads(summary.json.read_text())
    assert [(g["set"], g["codec"], g["level"], g["num_pictures"]) for g in content["groups"]] == [
        ("a", "jpeg", 10, 2),
        ("a", "jpeg", 40, 2),
        ("b", "jpeg", 10, 1),
    ]
    rows = [row for row in read_csv(summary.csv) if (row["set"], row["level"]) == ("a", "40")]
    group = content["groups"][1]
    for name in ("psnr_db", "psnr_y_db", "ssim", "lpips", "lpips_legacy", "blockiness"):
        before = np.mean([float(row[f"lq_{name}"]) for row in rows])
        after = np.mean([float(row[f"out_{name}"]) for row in rows])
        assert group["before"][name] == pytest.approx(before, abs=2e-6)
        assert group["after"][name] == pytest.approx(after, abs=2e-6)
        assert group["difference"][name] == pytest.approx(after - before, abs=4e-6)
    assert content["facts"]["command"] == "sqe evaluate a b"
    assert content["facts"]["processor"]


def test_four_levels_tell_how_many_bits_are_saved(tmp_path):
    sets = {"photos": draw_pairs(levels=(10, 20, 40, 70)), "few": draw_pairs(levels=(10, 20, 40))}
    original = {lq.tobytes(): gt for pairs in sets.values() for lq, gt in pairs.pictures}

    def restore_half(lq):
        return ((lq.astype(int) + original[lq.tobytes()]) // 2).astype(np.uint8)

    summary = evaluate(restore_half, sets, tmp_path)
    (saved,) = json.loads(summary.json.read_text())["bd_rate_percent"]
    assert (saved.pop("set"), saved.pop("codec")) == ("photos", "jpeg")
    assert saved.keys() == {"psnr_db", "psnr_y_db", "ssim", "lpips", "lpips_legacy"}
    groups = [group for group in summary.groups if group.set_name == "photos"]
    bpp = [group.bpp for group in groups]
    before, after = [g.before["psnr_db"] for g in groups], [g.after["psnr_db"] for g in groups]
    assert saved["psnr_db"] == pytest.approx(bd_rate(bpp, before, bpp, after), abs=1e-6)
    assert saved["psnr_db"] < -5
    assert "BD-rate" in summary.html.read_text()


def test_without_a_model_there_are_no_output_columns(tmp_path):
    summary = evaluate(None, {"noise": draw_pairs(count=1)}, tmp_path)
    assert not [name for name in read_csv(summary.csv)[0] if name.startswith("out_") or name.startswith("seconds")]
    assert json.loads(summary.json.read_text())["groups"][0]["after"] is None
    assert ">enhanced<" not in summary.html.read_text()


def test_equal_pictures_have_no_psnr_in_json(tmp_path):
    pairs = draw_pairs(levels=(40,), count=1)
    summary = evaluate(lambda image: pairs.pictures[0][1][: image.shape[0]], {"noise": pairs}, tmp_path)
    assert read_csv(summary.csv)[0]["out_psnr_db"] == "inf"
    assert json.loads(summary.json.read_text())["groups"][0]["after"]["psnr_db"] is None  # JSON knows no inf


def test_what_fails_is_listed_and_left_out(tmp_path):
    pairs = draw_pairs(broken=(1,))

    def moody(image):
        if np.array_equal(image, pairs.pictures[2][0]):
            return image[1:]
        if np.array_equal(image, pairs.pictures[3][0]):
            raise MemoryError
        return image

    summary = evaluate(moody, {"noise": pairs}, tmp_path)
    assert [(str(path), reason) for path, reason in summary.failed] == [
        ("noise/picture0.png__jpeg-40", "pair 1 is damaged"),
        ("noise/picture1.png__jpeg-10", "expected uint8 (40, 48, 3) from the model, got uint8 (39, 48, 3)"),
        ("noise/picture1.png__jpeg-40", "not enough memory"),
    ]
    assert len(read_csv(summary.csv)) == 1
    assert len(json.loads(summary.json.read_text())["failed"]) == 3
    assert "3 could not be measured" in summary.html.read_text()


def test_a_pair_that_cannot_be_shown_is_in_no_mean(tmp_path, monkeypatch):
    def fail(title, *rest):
        if "picture0.png" in title:
            raise MemoryError
        return compare(title, *rest)

    monkeypatch.setattr(module, "compare", fail)
    summary = evaluate(brighten, {"noise": draw_pairs(levels=(10,))}, tmp_path)
    assert [row.info.name for row in summary.rows] == ["picture1.png"]
    assert [str(path) for path, _ in summary.failed] == ["noise/picture0.png__jpeg-10"]


def test_two_at_a_time_do_not_write_to_one_folder(tmp_path):
    with held(tmp_path, "another"), pytest.raises(ConfigError, match="another evaluation writes here; wait for it"):
        evaluate(brighten, {"noise": draw_pairs()}, tmp_path)
    evaluate(brighten, {"noise": draw_pairs()}, tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_nothing_to_measure_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ConfigError, match="found none in empty"):
        evaluate(None, {"empty": Pairs([], [])}, tmp_path / "out")
    with pytest.raises(SubjectiveQEError, match=r"none of 4 pairs could be measured; .*pair 0 is damaged"):
        evaluate(None, {"noise": draw_pairs(broken=(0, 1, 2, 3))}, tmp_path / "out")
    small = draw_pairs(size=(16, 16))
    with pytest.raises(SubjectiveQEError, match="LPIPS needs pictures of at least 31x31 px, got 16x16"):
        evaluate(None, {"small": small}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dists_without_weights_fails_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="sqe weights"):
        evaluate(None, {"noise": draw_pairs()}, tmp_path / "out", measures=["dists"])


def test_only_the_measures_asked_for_are_taken(tmp_path):
    summary = evaluate(None, {"noise": draw_pairs(count=1)}, tmp_path / "out", measures=["ssim", "psnr_db"])
    assert list(summary.rows[0].before) == ["ssim", "psnr_db"]
    with pytest.raises(ConfigError, match='unknown measure "vmaf"'):
        evaluate(None, {"noise": draw_pairs()}, tmp_path / "other", measures=["vmaf"])


def test_without_a_model_there_is_nothing_to_save(tmp_path):
    with pytest.raises(ConfigError, match="save_images: there are no outputs without a model"):
        evaluate(None, {"noise": draw_pairs()}, tmp_path / "out", save_images=True)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_an_error_and_keeps_the_old_tables(tmp_path, monkeypatch):
    pairs = {"noise": draw_pairs(levels=(10,), count=1)}
    evaluate(None, pairs, tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, _):
        raise ImageError(f"{path}: cannot be written; is the disk full?")

    monkeypatch.setattr(module, "write_png", full)
    with pytest.raises(SubjectiveQEError, match="is the disk full"):
        evaluate(brighten, pairs, tmp_path, save_images=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_saved_outputs_are_those_of_the_last_run(tmp_path):
    images, unknown = tmp_path / "images", draw_pairs(levels=(10,), count=1)
    unknown.infos = [dataclasses.replace(info, level=-1) for info in unknown.infos]
    evaluate(brighten, {"noise": draw_pairs(), "old": unknown}, tmp_path, save_images=True)
    assert (images / "old" / "picture0.png.png").is_file()
    kept = {images / "noise" / "notes.txt", images / "noise" / "mine.png", images / "picture0.png__jpeg-10.png"}
    for mine in kept:
        mine.write_text("mine")

    def files():
        return {path for path in images.rglob("*") if path.is_file() and path.name != ".saved"}

    with pytest.raises(SubjectiveQEError, match="could be measured"):  # nothing new, so the old stays whole
        evaluate(brighten, {"noise": draw_pairs(broken=(0, 1, 2, 3))}, tmp_path, save_images=True)
    assert len(files()) == 4 + 1 + 3
    evaluate(brighten, {"noise": draw_pairs(levels=(20, 40), broken=(1,))}, tmp_path, save_images=True)
    names = ("picture0.png__jpeg-20.png", "picture1.png__jpeg-20.png", "picture1.png__jpeg-40.png")
    assert files() == kept | {images / "noise" / name for name in names}
    assert not (images / "old").exists()
    evaluate(brighten, {"noise": draw_pairs()}, tmp_path)
    assert files() == kept


def test_nothing_is_written_into_a_store_that_is_measured(tmp_path):
    write_png(tmp_path / "photos" / "a.png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    store = tmp_path / "a.lmdb"
    prepare(tmp_path / "photos", store, "jpeg", [20], jobs=1)
    before = {path.name for path in store.iterdir()}
    with pytest.raises(ConfigError, match=r"is measured and lies where the tables would go; give another --out"):
        evaluate(None, open_sets([store]), store)
    assert {path.name for path in store.iterdir()} <= before | {"lock.mdb"}


def test_pairs_that_lie_where_outputs_go_are_left_alone(tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / "photos" / f"{name}.png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    prepare(tmp_path / "photos", tmp_path / "images", "jpeg", [20], layout="png", jobs=1)
    sets = open_sets([tmp_path / "images"])
    assert len(evaluate(None, sets, tmp_path).rows) == 2
    assert check_store(tmp_path / "images") == 2
    with pytest.raises(ConfigError, match=r"is measured and lies where outputs are saved; give another --out"):
        evaluate(brighten, sets, tmp_path, save_images=True)


def test_a_note_of_outputs_reaches_nothing_beyond_their_folder(tmp_path):
    images, inner = tmp_path / "images", tmp_path / "inner"
    evaluate(brighten, {"noise": draw_pairs()}, tmp_path, save_images=True)
    inner.mkdir()
    (inner / "mine.png").write_text("mine")
    (tmp_path / "mine.png").write_text("mine")
    with (images / ".saved").open("a") as note:
        note.write("\n".join(map(json.dumps, ["../mine.png", str(inner / "mine.png"), 7, ["x"]])) + '\n"cut')
    evaluate(brighten, {"noise": draw_pairs()}, tmp_path)
    assert (tmp_path / "mine.png").is_file()
    assert (inner / "mine.png").is_file()
    assert not images.exists()


def test_inputs_that_lie_there_by_a_link_are_not_removed(tmp_path):
    images = tmp_path / "images"
    evaluate(brighten, {"lq": draw_pairs(levels=(10,), count=1)}, tmp_path, save_images=True)
    write_png(tmp_path / "gt" / "picture0.png__jpeg-10.png", np.full((40, 48, 3), 90, np.uint8))
    (tmp_path / "link").symlink_to(images / "lq")
    evaluate(None, {"mine": pair_folders(tmp_path / "link", tmp_path / "gt")}, tmp_path)
    assert (images / "lq" / "picture0.png__jpeg-10.png").is_file()


def test_pairs_that_cannot_be_read_are_listed(tmp_path):
    for name in ("a", "b"):
        for side in ("lq", "gt"):
            write_png(tmp_path / side / f"{name}.png", np.full((40, 40, 3), 90, np.uint8))
    (tmp_path / "lq" / "b.png").write_text("junk")
    summary = evaluate(brighten, {"two": pair_folders(tmp_path / "lq", tmp_path / "gt", keeps_unread=True)}, tmp_path)
    assert [row.info.name for row in summary.rows] == ["a.png"]
    ((name, reason),) = summary.failed
    assert "b.png" in str(name)
    assert "cannot be read" in reason


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    pairs = draw_pairs(levels=(10, 40), count=1, broken=(1,))
    pairs.infos = [dataclasses.replace(info, name=name) for info in pairs.infos]
    summary = evaluate(brighten, {name: pairs}, tmp_path, facts={"command": f"sqe evaluate {name}"})
    escaped = "caf\\udce9.png"
    assert (read_csv(summary.csv)[0]["name"], read_csv(summary.csv)[0]["set"]) == (escaped, escaped)
    content = json.loads(summary.json.read_text())
    assert content["groups"][0]["set"] == escaped
    assert content["failed"][0]["name"] == f"{escaped}/{escaped}__jpeg-40"
    assert content["facts"]["command"] == f"sqe evaluate {escaped}"
    assert f"<h3>{escaped}: {escaped}, jpeg 10</h3>" in summary.html.read_text()


def test_paired_folders_are_measured_and_a_picture_damaged_later_is_listed(tmp_path):
    for name, lq, gt in (("a", 90, 100), ("b", 80, 100)):
        write_png(tmp_path / "kit" / "lq" / f"{name}.png", np.full((32, 32, 3), lq, np.uint8))
        write_png(tmp_path / "kit" / "gt" / f"{name}.png", np.full((32, 32, 3), gt, np.uint8))
    sets = open_sets([tmp_path / "kit"])
    path = tmp_path / "kit" / "lq" / "b.png"
    path.write_bytes(path.read_bytes()[:60])
    summary = evaluate(None, sets, tmp_path / "out")
    assert [row["name"] for row in read_csv(summary.csv)] == ["a.png"]
    assert float(read_csv(summary.csv)[0]["lq_psnr_db"]) == pytest.approx(20 * math.log10(25.5), abs=1e-5)
    assert len(summary.failed) == 1
    assert "b.png" in summary.failed[0][1]


def test_two_sets_of_one_name_are_refused(tmp_path):
    for parent in ("x", "y"):
        for part in ("lq", "gt"):
            write_png(tmp_path / parent / "kit" / part / "a.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match='another pair set is called "kit" too'):
        open_sets([tmp_path / "x" / "kit", tmp_path / "y" / "kit"])


def test_the_model_says_what_it_is_and_is_timed_per_megapixel(tmp_path, monkeypatch):
    class Model:
        metadata: ClassVar = {"net": "of the model", "command": "overruled"}

        def __call__(self, image):
            clock.append(clock[-1] + (0.25 if len(clock) > 1 else 100))
            return image

    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[-1])
    summary = evaluate(Model(), {"noise": draw_pairs(count=1)}, tmp_path, facts={"command": "sqe evaluate"})
    assert [row.seconds_per_mp for row in summary.rows] == pytest.approx([0.25 * 1e6 / (40 * 48)] * 2)
    facts = json.loads(summary.json.read_text())["facts"]
    assert (facts["net"], facts["command"]) == ("of the model", "sqe evaluate")


def test_an_improvement_goes_the_way_of_its_measure():
    assert is_better("psnr_db", 30, 31)
    assert is_better("lpips", 0.2, 0.1)
    assert is_better("blockiness", 2.0, 1.1)
    assert is_better("blockiness", 0.5, 0.9)
    assert not is_better("blockiness", 1.0, 0.8)
    assert not any(is_better(name, 0.5, 0.5) for name in MEASURES)


def test_shown_pictures_take_turns(tmp_path):
    summary = evaluate(None, {"noise": draw_pairs(levels=(10, 20, 40), count=3)}, tmp_path, shown=4)
    titles = re.findall(r"<h3>(.*?)</h3>", summary.html.read_text())
    assert titles == [
        "noise: picture0.png, jpeg 10",
        "noise: picture0.png, jpeg 20",
        "noise: picture0.png, jpeg 40",
        "noise: picture1.png, jpeg 10",
    ]


def test_the_machine_is_described():
    facts = describe_machine()
    assert set(facts) == {"date", "processor", "system", "versions"}
    assert "onnxruntime" in facts["versions"]


class Page(html.parser.HTMLParser):
    """Collects what a page would load, its controls, and whether its tags are balanced."""

    VOID = frozenset({"meta", "img", "input"})

    def __init__(self):
        super().__init__()
        self.loads, self.inputs, self.unnamed, self.open = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [found[key] for key in ("src", "href", "srcset", "data") if key in found]
        if tag == "input":
            self.inputs.append(found["type"])
        if tag == "img" and not found.get("alt"):
            self.unnamed += 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_file_with_a_slider_per_picture(tmp_path):
    summary = evaluate(brighten, {"noise": draw_pairs()}, tmp_path)
    text = summary.html.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.inputs.count("range") == 4
    assert len(page.loads) == 12  # compressed, enhanced, original
    assert all(load.startswith("data:image/webp;base64,") for load in page.loads)
    assert page.unnamed == 0
    assert "<link" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "http" not in re.sub(r"data:[^\"]+", "", text)


def test_names_cannot_break_out_of_the_report(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    evil = "<script>alert(1)</script>\"'"
    write_report(
        tmp_path / "r.html", evil, [Table(evil, [evil], [])], [compare(evil, evil, image, image, image)], {evil: evil}
    )
    assert "<script>alert" not in (tmp_path / "r.html").read_text()


def test_large_pictures_are_shown_from_the_middle():
    gt = np.zeros((8, SHOWN_PX + 100, 3), np.uint8)
    shown = compare("wide", "", gt, None, gt)
    assert (shown.height, shown.width, shown.is_cropped) == (8, SHOWN_PX, True)
    assert not compare("small", "", gt[:, :9], None, gt[:, :9]).is_cropped


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_a_dial_that_a_model_does_not_have_is_told(tmp_path, monkeypatch, capsys, command):
    if command == "benchmark":
        pytest.importorskip("matplotlib")
    for side in ("lq", "gt"):
        write_png(tmp_path / "kit" / side / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    words = ["kit"] if command == "evaluate" else ["kit/gt", "--codec", "jpeg:10", "--without", "dists"]
    words += ["--model", "fast-int8", "--strength", "0", "--runtime", "onnxruntime", "-o", "out"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sqe", command, *words])
    assert main() == 0
    assert "has no dial, runs at strength 1" in capsys.readouterr().err
