"""The benchmark measures what `evaluate` measures, goes on after a kill, and refuses rows of another model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from subjectiveqe import files
from subjectiveqe.codecs import get_codec
from subjectiveqe.errors import ConfigError, ImageError
from subjectiveqe.evaluating import benchmark as module
from subjectiveqe.evaluating.benchmark import LEVELS, STANDARD_MEASURES, benchmark, parse_levels
from subjectiveqe.evaluating.evaluate import evaluate, open_sets
from subjectiveqe.evaluating.measures import MEASURES, choose_measures
from subjectiveqe.evaluating.results import bd_rates
from subjectiveqe.files import held
from subjectiveqe.images import read_rgb, write_png
from subjectiveqe.samples import samples

pytest.importorskip("matplotlib")

PLAIN = ("psnr_db", "ssim", "lpips", "blockiness")
JPEG = {"jpeg": (10, 20, 40, 70)}


@pytest.fixture
def photos(tmp_path):
    for number, path in enumerate(samples()):
        write_png(tmp_path / "photos" / f"{number}.png", read_rgb(path)[:90, :99])
    return tmp_path / "photos"


def soften(image):
    """Neither a good nor a bad model."""
    return ((image.astype(np.uint16) + np.roll(image, 1, axis=1) + 1) // 2).astype(np.uint8)


SOFTEN = {"model": "soften"}


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_those_of_evaluate_on_stored_pairs(photos, tmp_path):
    found = benchmark(soften, [photos], tmp_path / "out", levels=JPEG, measures=PLAIN)
    for path in photos.iterdir():
        gt = read_rgb(path)[:88, :96]
        write_png(tmp_path / "pairs" / "gt" / path.name, gt)
        write_png(tmp_path / "pairs" / "lq" / path.name, get_codec("jpeg").code(gt, 20).rgb)
    expected = evaluate(soften, open_sets([tmp_path / "pairs"]), tmp_path / "evaluation")
    at_20 = {row.info.name: row for row in found.rows if row.info.level == 20}
    assert len(found.rows) == 3 * 4
    for row in expected.rows:
        for name in PLAIN:
            assert at_20[row.info.name].before[name] == pytest.approx(row.before[name])
            assert at_20[row.info.name].after[name] == pytest.approx(row.after[name])
    assert at_20["0.png"].info.num_bytes == get_codec("jpeg").code(read_rgb(photos / "0.png")[:88, :96], 20).num_bytes


def test_the_page_has_curves_and_bits_saved(photos, tmp_path):
    summary = benchmark(soften, [photos], tmp_path / "out", levels=JPEG, measures=PLAIN)
    page = summary.html.read_text()
    assert page.count("<svg") == 1
    assert "photos, jpeg: means over the pictures" in page
    assert ">LPIPS</text>" in page
    assert "BD-rate" in page
    saved = json.loads(summary.json.read_text())
    assert set(saved["bd_rate_percent"][0]) == {"set", "codec", "psnr_db", "ssim", "lpips"}
    assert len(read_csv(summary.csv)) == 12
    assert page.count('class="stack"') == 4  # a picture of each level


@pytest.mark.parametrize("name", PLAIN)
def test_one_measure_alone_is_enough(photos, tmp_path, name):
    summary = benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10, 20)}, measures=[name])
    assert set(summary.groups[0].before) == {name}
    assert summary.html.read_text().count('class="stack"') == 2


def test_what_is_measured_is_not_measured_again(photos, tmp_path, monkeypatch):
    first = benchmark(soften, [photos], tmp_path / "out", levels=JPEG, measures=PLAIN, identity=SOFTEN)
    rows = (tmp_path / "out" / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "rows.jsonl").write_text("".join(rows[:6]) + rows[6][:40])  # killed while writing a row
    measured = []
    measure = module._measure
    monkeypatch.setattr(module, "_measure", lambda *args: measured.append(args[1].key) or measure(*args))
    again = benchmark(soften, [photos], tmp_path / "out", levels=JPEG, measures=PLAIN, identity=SOFTEN)
    assert len(measured) == 12 - 5
    assert [row.before for row in again.rows] == [row.before for row in first.rows]
    assert again.groups[0].after == first.groups[0].after
    assert (tmp_path / "out" / "rows.jsonl").read_text().count("\n") == 13


LACKING = {"origin": {}, "info": dict.fromkeys(("name", "codec", "level", "num_bytes", "height", "width"), 1)}
LACKING |= {"set_name": "a", "before": dict.fromkeys(PLAIN, 30), "after": dict.fromkeys(PLAIN, 30), "seconds_per_mp": 1}
DAMAGED = ["not JSON", "null", "\xff\xfe", "[1]", "{}", '{"origin": {}, "info": {"x": 1}}']
DAMAGED += [json.dumps(LACKING | {side: values}) for side in ("before", "after") for values in ({}, {"psnr_db": 30})]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_row_is_named(photos, tmp_path, damaged):
    benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN, identity=SOFTEN)
    rows = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    text = "\n".join([*rows[:2], damaged, *rows[3:]]) + "\n"
    (tmp_path / "out" / "rows.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"rows\.jsonl: line 3 is damaged; delete the line, or the file"):
        benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN, identity=SOFTEN)


@pytest.mark.parametrize("kept", [lambda whole: whole.split(b"\n")[0], lambda whole: whole[:-20]])
def test_rows_may_end_without_a_newline(photos, tmp_path, kept):
    def run():
        return benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN, identity=SOFTEN)

    run()
    path = tmp_path / "out" / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(kept(whole))
    run()
    run()  # which reads what the one before has written
    assert path.read_bytes().count(b"\n") == whole.count(b"\n")


def test_a_killed_command_goes_on(photos, tmp_path):
    words = [sys.executable, "-m", "subjectiveqe", "benchmark", str(photos), "-o", str(tmp_path / "out")]
    words += ["--codec", "jpeg:10,40", "--runtime", "onnxruntime", "--without", "dists", "--without", "ssimulacra2"]
    rows = tmp_path / "out" / "rows.jsonl"
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (rows.is_file() and rows.read_bytes().count(b"\n") > 2):
        assert process.poll() is None or process.returncode == 0
        if process.poll() is not None:
            break
        time.sleep(0.002)
    process.kill()
    process.wait()
    before = rows.read_text().splitlines()
    assert len(before) < 1 + 3 * 2  # it was killed before its end
    subprocess.run(words, check=True)
    after = rows.read_text().splitlines()
    assert len(after) == 1 + 3 * 2
    assert after[: len(before) - 1] == before[:-1]
    assert len(read_csv(tmp_path / "out" / "images.csv")) == 6


def test_rows_of_another_model_are_refused(photos, tmp_path):
    benchmark(soften, [photos], tmp_path / "out", levels=JPEG, measures=PLAIN, identity={"model": "one"})
    with pytest.raises(
        ConfigError, match=r"another benchmark, by its model: .*'one'.*, not .*'two'.*; give another --out"
    ):
        benchmark(soften, [photos], tmp_path / "out", levels=JPEG, measures=PLAIN, identity={"model": "two"})


def test_two_at_a_time_do_not_write_to_one_folder(photos, tmp_path):
    with (
        held(tmp_path / "out", "another"),
        pytest.raises(ConfigError, match=r"out: another benchmark writes here; wait for it"),
    ):
        benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN)


def test_pictures_that_get_worse_are_listed_the_worst_first(photos, tmp_path):
    spoilt = read_rgb(photos / "1.png")[:88, :96]

    def model(lq):
        """Good but for one picture, which becomes noise at the finer level and worse at the coarser one."""
        off = np.abs(lq.astype(int) - spoilt[: len(lq), : lq.shape[1]]).mean()
        if off > 20 or lq.shape != spoilt.shape:
            return lq
        rng = np.random.default_rng(0)
        return np.clip(lq + rng.normal(0, 60 if off < 4 else 20, lq.shape), 0, 255).astype(np.uint8)

    summary = benchmark(model, [photos], tmp_path / "out", levels={"jpeg": (20, 90)}, measures=PLAIN)
    worse = json.loads(summary.json.read_text())["lpips_worse"]
    assert [entry["name"] for entry in worse] == ["1.png__jpeg-90", "1.png__jpeg-20"]
    assert worse[0]["after"] - worse[0]["before"] > worse[1]["after"] - worse[1]["before"] > 0.002
    assert "LPIPS rose by more than 0.002: 2 of 6, the worst first" in summary.html.read_text()


def test_more_levels_keep_the_rows_that_are_there(photos, tmp_path):
    benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN, identity=SOFTEN)
    more = {"jpeg": (10, 20)}
    summary = benchmark(soften, [photos], tmp_path / "out", levels=more, measures=PLAIN, identity=SOFTEN)
    assert [group.level for group in summary.groups] == [10, 20]


def test_rows_of_other_pictures_or_another_codec_are_measured_again(photos, tmp_path, monkeypatch):
    def run():
        levels = {"jpeg": (10,), "webp": (20,)}
        return benchmark(soften, [photos], tmp_path / "out", levels=levels, measures=PLAIN, identity=SOFTEN)

    run()
    write_png(photos / "1.png", read_rgb(photos / "2.png"))
    measured = []
    measure = module._measure
    monkeypatch.setattr(module, "_measure", lambda *args: measured.append(args[1].key[1:3]) or measure(*args))
    rows = {(row.info.name, row.info.codec): row.before for row in run().rows}
    assert measured == [("1.png", "jpeg"), ("1.png", "webp")]
    assert rows["1.png", "jpeg"] == rows["2.png", "jpeg"]
    run()
    assert len(measured) == 2
    monkeypatch.setattr(type(get_codec("webp")), "settings", lambda _: {"method": 0})
    run()
    assert measured[2:] == [("0.png", "webp"), ("1.png", "webp"), ("2.png", "webp")]
    monkeypatch.setattr(module, "library_versions", lambda: {"libwebp": "0"})
    run()
    assert len(measured) == 5 + 6


def test_rows_of_a_model_that_nothing_tells_from_others_are_not_taken_up(photos, tmp_path):
    benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN)
    with pytest.raises(ConfigError, match="has rows of another benchmark"):
        benchmark(np.zeros_like, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN)


def test_bits_saved_are_of_the_same_pictures_at_all_levels(photos, tmp_path):
    whole = benchmark(soften, [photos], tmp_path / "a", levels=JPEG, measures=PLAIN, identity=SOFTEN)
    rows = [row for row in whole.rows if (row.info.name, row.info.level) != ("1.png", 10)]
    (photos / "1.png").unlink()
    two = benchmark(soften, [photos], tmp_path / "b", levels=JPEG, measures=PLAIN, identity=SOFTEN)
    assert bd_rates(rows) == bd_rates(two.rows) != bd_rates(whole.rows)
    drawn = [row for k, row in enumerate(whole.rows) if k % 5 == 0]  # each level another picture
    assert bd_rates(drawn) == {}


def test_a_picture_that_equals_its_original_goes_through_strict_json(tmp_path):
    write_png(tmp_path / "photos" / "flat.png", np.full((32, 32, 3), 128, np.uint8))

    def run():
        return benchmark(
            None, [tmp_path / "photos"], tmp_path / "out", levels={"jpeg": (90,)}, measures=["psnr_db"], identity=SOFTEN
        )

    first = run().rows
    assert first[0].before["psnr_db"] == np.inf

    def refuse(constant):
        raise AssertionError(constant)

    for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert run().rows == first


def test_a_measured_picture_that_is_gone_is_not_shown(photos, tmp_path, monkeypatch):
    def run():
        return benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN, identity=SOFTEN)

    rows = run().rows

    def gone(*_):
        raise ImageError("gone")

    monkeypatch.setattr(module, "_compare", gone)
    summary = run()
    assert summary.rows == rows
    assert summary.html.is_file()


def test_a_picture_that_nobody_may_read_is_listed(photos, tmp_path, monkeypatch):
    whole = files.sha256_of

    def digest(path):
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    (photos / "1.png").write_bytes(b"")
    monkeypatch.setattr(files, "sha256_of", digest)
    summary = benchmark(None, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN)
    assert [str(path) for path, _ in summary.failed] == ["photos/1.png"]


def test_a_picture_that_memory_is_too_small_for_is_listed(photos, tmp_path, monkeypatch):
    read = module.read_rgb

    def read_or_fail(path):
        if path.name == "1.png":
            raise MemoryError
        return read(path)

    monkeypatch.setattr(module, "read_rgb", read_or_fail)
    summary = benchmark(None, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN)
    assert [(str(path), reason) for path, reason in summary.failed] == [("photos/1.png", "not enough memory")]


def test_a_picture_that_cannot_be_read_is_listed_once(photos, tmp_path):
    (photos / "1.png").write_bytes(b"no picture")
    steps = []
    summary = benchmark(
        None,
        [photos],
        tmp_path / "out",
        levels={"jpeg": (10, 20)},
        measures=PLAIN,
        progress=lambda *step: steps.append(step),
    )
    assert [str(path) for path, _ in summary.failed] == ["photos/1.png"]
    assert steps == [(done, 6) for done in range(1, 7)]
    assert len(summary.rows) == 4
    assert summary.rows[0].after is None


def test_a_picture_whose_name_is_not_utf8_does_not_end_the_others(photos, tmp_path):
    shutil.copy(photos / "1.png", photos / os.fsdecode(b"caf\xe9.png"))
    summary = benchmark(None, [photos], tmp_path / "out", levels={"jpeg": (10,)}, measures=PLAIN)
    names = [row["name"] for row in read_csv(summary.csv)]
    names += [entry["name"] for entry in json.loads(summary.json.read_text())["failed"]]
    assert len(names) == 4
    assert [name for name in names if "caf\\udce9.png" in name]
    assert "caf\\udce9.png" in summary.html.read_text()


def test_what_cannot_be_measured_is_refused_up_front(photos, tmp_path):
    with pytest.raises(ConfigError, match="expected a folder"):
        benchmark(soften, [photos / "0.png"], tmp_path / "out", measures=PLAIN)
    with pytest.raises(ConfigError, match="no pictures found"):
        benchmark(soften, [], tmp_path / "out", measures=PLAIN)
    with pytest.raises(ConfigError, match='another set is called "photos" too'):
        benchmark(soften, [photos, photos], tmp_path / "out", measures=PLAIN)
    with pytest.raises(ConfigError, match=r"jpeg: qf must be 1\.\.100, got 0"):
        benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": (0,)}, measures=PLAIN)
    with pytest.raises(ConfigError, match=r"jpeg: expected one level or more, got none"):
        benchmark(soften, [photos], tmp_path / "out", levels={"jpeg": ()}, measures=PLAIN)
    with pytest.raises(ConfigError, match="hm: no encoder TAppEncoderStatic at"):
        benchmark(soften, [photos], tmp_path / "out", levels={"hm": (37,)}, measures=PLAIN)
    with pytest.raises(ConfigError, match='unknown measure "vmaf"'):
        benchmark(soften, [photos], tmp_path / "out", measures=["vmaf"])
    with pytest.raises(ConfigError, match="no measure is left"):
        benchmark(soften, [photos], tmp_path / "out", measures=[])
    assert not (tmp_path / "out").exists()


def test_hm_is_the_encoder_that_was_given(tmp_path, photos):
    """libx265 in its place; what is done with the program itself, the tests of codecs say."""
    stand_in = get_codec("hevc", chroma="444")
    summary = benchmark(
        soften, [photos], tmp_path / "out", levels={"hm": (37,)}, measures=PLAIN, codecs={"hm": stand_in}
    )
    assert {(row.info.codec, row.info.level) for row in summary.rows} == {("hm", 37)}
    rows = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert stand_in.settings().items() <= json.loads(rows[1])["origin"]["codec"].items()


def test_one_codec_is_measured_with_either_chroma(tmp_path, photos):
    levels = {"jpeg": [30], "jpeg-444": [30], "jpeg-420": [30]}
    summary = benchmark(soften, [photos], tmp_path / "out", levels=levels, measures=["psnr_db"])
    told = {row.info.codec: (row.info.num_bytes, row.before["psnr_db"]) for row in summary.rows}
    assert told["jpeg"] == told["jpeg-420"]
    assert told["jpeg-444"] > told["jpeg-420"]
    for name, said in (("jpeg-411", "chroma"), ("webp-444", 'codec "webp" has no option "chroma"')):
        with pytest.raises(ConfigError, match=said):
            benchmark(soften, [photos], tmp_path / "other", levels={name: [30]})


def test_codecs_and_measures_as_the_command_takes_them():
    assert parse_levels(["hevc"]) == {"hevc": LEVELS["hevc"]}
    assert parse_levels(["jpeg:10,10", "jpeg:20,10"]) == {"jpeg": (10, 20)}
    assert parse_levels(["jpeg-444", "hevc-420:37"]) == {"jpeg-444": LEVELS["jpeg"], "hevc-420": (37,)}
    with pytest.raises(ConfigError, match=r'got "jpeg:a"'):
        parse_levels(["jpeg:a"])
    with pytest.raises(ConfigError, match='say at which of its levels 0 to 51, as in "hm:30,40"'):
        parse_levels(["hm"])
    with pytest.raises(ConfigError, match='unknown codec "JPEG"; did you mean "jpeg"'):
        parse_levels(["JPEG"])
    assert choose_measures(STANDARD_MEASURES, ["ms_ssim"], ["dists"])[-1] == "ms_ssim"
    assert set(choose_measures(STANDARD_MEASURES, list(MEASURES), [])) == set(MEASURES)
    with pytest.raises(ConfigError, match='unknown measure "vmaf"; known: psnr_db'):
        choose_measures(STANDARD_MEASURES, ["vmaf"], [])
