"""Means and curves where values are not finite, footnotes of BD-rates, and the page, also on paper."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import pytest

from subjectiveqe.data.pairs import PairInfo
from subjectiveqe.evaluating.results import Curve, Row, bd_rates, curves
from subjectiveqe.evaluating.tables import headline, make_tables
from subjectiveqe.evaluating.write import describe_machine, write_results

PSNR = {10: 28.0, 20: 31.0, 40: 34.0, 70: 38.0}


def row(name="a.png", level=10, psnr_db=None, gain_db=1.0, set_name="photos", is_enhanced=True, **others):
    quality = PSNR[level] if psnr_db is None else psnr_db
    before = {"psnr_db": quality, **others}
    after = {name: value + (gain_db if name == "psnr_db" else 0) for name, value in before.items()}
    info = PairInfo(name, "jpeg", level, 400 * level, 64, 64)
    return Row(set_name, info, before, after if is_enhanced else None, 0.5 if is_enhanced else None)


def levels(name="a.png", **others):
    return [row(name, level, **others) for level in PSNR]


def write(tmp_path, rows, failed=(), plots=None):
    summary = write_results(tmp_path, "Benchmark", rows, failed, [], {}, plots)
    return summary, json.loads(summary.json.read_text()), summary.html.read_text()


def test_a_mean_is_of_the_pictures_with_finite_values_and_says_so(tmp_path):
    rows = [row("a.png"), row("b.png", psnr_db=30.0), row("equal.png", psnr_db=math.inf)]
    _, content, page = write(tmp_path, rows)
    (group,) = content["groups"]
    assert (group["num_pictures"], group["left_out"]) == (3, {"psnr_db": ["equal.png"]})
    assert (group["before"]["psnr_db"], group["after"]["psnr_db"]) == (29.0, 30.0)
    assert "29.00 → 30.00*" in page
    assert "photos, jpeg 10: PSNR dB without equal.png." in page


@pytest.mark.parametrize(("count", "named"), [(3, "0.png, 1.png, 2.png"), (4, "4 pictures (0.png, 1.png, 2.png, ...)")])
def test_of_many_pictures_that_are_left_out_a_few_are_named(tmp_path, count, named):
    summary, *_ = write(tmp_path, [row("a.png"), *(row(f"{k}.png", psnr_db=math.inf) for k in range(count))])
    assert make_tables(summary)[0].notes[1].endswith(f" photos, jpeg 10: PSNR dB without {named}.")


def test_both_means_are_of_the_same_pictures(tmp_path):
    spoilt = row("b.png", psnr_db=50.0)
    spoilt.after["psnr_db"] = math.inf
    _, content, _ = write(tmp_path, [row("a.png"), spoilt])
    assert (content["groups"][0]["before"]["psnr_db"], content["groups"][0]["after"]["psnr_db"]) == (28.0, 29.0)


def test_where_no_picture_has_finite_values_none_is_left_out(tmp_path):
    _, content, page = write(tmp_path, [row(psnr_db=math.inf)])
    assert (content["groups"][0]["before"]["psnr_db"], content["groups"][0]["left_out"]) == (None, {})
    assert "inf → inf" in page


def test_the_terminal_gets_the_measures_that_are_asked_for_first(tmp_path):
    rows = [*levels(lpips=0.2, ssim=0.9), *levels("b.png", lpips=0.3, ssim=math.inf)]
    means, savings = headline(write(tmp_path, rows)[0])
    assert means.headings == ["pairs", "pictures", "bpp", "PSNR dB", "LPIPS", "s per MP"]
    assert means.notes == ["PSNR dB: higher is better; LPIPS: lower is better."]  # nothing of what is not shown
    assert savings.headings == ["pairs", "PSNR dB", "LPIPS"]
    only = [row(level=level, psnr_db=None, blockiness=1.2, ssim=0.5 + level / 200) for level in PSNR]
    for one in only:
        for side in (one.before, one.after):
            del side["psnr_db"]
    [means] = headline(write(tmp_path, only)[0])
    assert means.headings == ["pairs", "pictures", "bpp", "blockiness", "s per MP"]
    for one in only:
        for side in (one.before, one.after):
            del side["blockiness"]
    assert headline(write(tmp_path, only)[0])[0].headings == ["pairs", "pictures", "bpp", "SSIM", "s per MP"]


def test_the_terminal_gets_what_is_measured_only_where_asked_for(tmp_path):
    [means] = headline(write(tmp_path, [row(ms_ssim=0.9, ssim=0.8, lpips_legacy=0.1)])[0])
    assert means.headings == ["pairs", "pictures", "bpp", "PSNR dB", "MS-SSIM", "s per MP"]
    [means] = headline(write(tmp_path, [row(ms_ssim=0.9, ssim=0.8, lpips_legacy=0.1)])[0], ["lpips_legacy"])
    assert "LPIPS legacy" in means.headings


def test_one_equal_picture_does_not_bend_the_curve():
    found = curves([*levels(), *levels("equal.png", psnr_db=math.inf), row("late.png", 70)])["photos", "jpeg"]
    assert found["psnr_db"] == Curve(
        [400 * level * 8 / 64**2 for level in PSNR],
        list(PSNR.values()),
        [value + 1 for value in PSNR.values()],
        1,
        ["equal.png"],
    )
    rates = bd_rates([*levels(), *levels("equal.png", psnr_db=math.inf)])
    assert rates == bd_rates(levels())
    assert rates["photos", "jpeg"]["psnr_db"].percent < 0


def test_a_sliver_of_overlap_is_marked_and_none_is_explained(tmp_path):
    rows = [*levels(gain_db=1.0), *levels(gain_db=9.5, set_name="sliver"), *levels(gain_db=20.0, set_name="apart")]
    _, content, page = write(tmp_path, rows)
    overlaps = {entry["set"]: entry["psnr_db"] for entry in content["bd_rate_overlap"]}
    assert overlaps == {
        "apart": 0,
        "photos": pytest.approx(9 / 11, abs=1e-3),
        "sliver": pytest.approx(0.5 / 19.5, abs=1e-3),
    }
    assert content["bd_rate_percent"][0] == {"set": "apart", "codec": "jpeg", "psnr_db": None}
    assert "* The curves share less than 75% of the quality they reach. sliver, jpeg, PSNR dB: 3%." in page
    assert "– No BD-rate. apart, jpeg, PSNR dB: the curves share no range of quality." in page
    assert len(re.findall(r">-\d+\.\d\*", page)) == 1
    assert "<td>–</td>" in page


def test_verdicts_are_of_what_is_printed(tmp_path):
    rows = [*levels(lpips=0.2), *levels(gain_db=-1.0, set_name="worse"), *levels(gain_db=0.001, set_name="same")]
    for one in rows[4:]:
        for side in (one.before, one.after):
            side["lpips"] = 0.2
    rows[0].after["lpips"], rows[5].after["lpips"] = 0.1, 0.3
    means, savings, *_ = make_tables(write(tmp_path, rows)[0])
    verdicts = {line[0].text: [cell.verdict for cell in line[3:5]] for line in means.rows}
    assert verdicts["photos, jpeg 10"] == ["better", "better"]
    assert verdicts["worse, jpeg 20"] == ["worse", "worse"]
    assert verdicts["same, jpeg 10"] == ["", ""]
    saved = {line[0].text: line[1].verdict for line in savings.rows}
    assert (saved["photos, jpeg"], saved["worse, jpeg"]) == ("better", "worse")


def test_only_what_got_worse_by_more_than_is_seen_is_listed(tmp_path):
    rows = [row(f"{name}.png", lpips=0.2) for name in ("a", "b", "c")]
    for one, rise in zip(rows, (0.0019, 0.0021, -0.1), strict=True):
        one.after["lpips"] += rise
    _, content, page = write(tmp_path, rows)
    assert [entry["name"] for entry in content["lpips_worse"]] == ["b.png__jpeg-10"]
    assert "LPIPS rose by more than 0.002: 1 of 3, the worst first" in page


def test_bits_saved_stand_open_and_paper_shows_whole_tables(tmp_path):
    _, _, page = write(tmp_path, levels())
    assert "<details open>\n<summary>Bits at equal quality" in page
    style = page[page.index("@media print") : page.index("</style>")]
    assert ".wide, .scroll { overflow: visible" in style
    assert "landscape" in page


def test_versions_name_what_codes_the_pictures():
    versions = describe_machine()["versions"]
    for name in ("pillow", "av", "pyvips", "libjpeg-turbo", "libwebp"):
        assert re.search(rf"\b{name} \d", versions), name


def test_names_stay_one_row_and_text_is_quoted(tmp_path):
    rows = [row("a\rb\n\u2028c.png", set_name="NA")]
    summary, content, _ = write(tmp_path, rows, [(Path("NA/x\ry.png"), "damaged")])
    text = summary.csv.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 2
    assert text.splitlines()[1].startswith('"NA","a\\rb\\n\\u2028c.png","jpeg",10,64,64,4000,7.8125,28.0,29.0,')
    (found,) = csv.DictReader(text.splitlines())
    assert found["set"] == "NA"
    assert content["failed"][0]["name"] == "NA/x\\ry.png"


# ---------------------------------------------------------------- curves


def draw(rows):
    pytest.importorskip("matplotlib")
    from subjectiveqe.evaluating.plots import rate_distortion

    return rate_distortion(rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values", [{"blockiness": 1.2}, {"psnr_db": math.inf, "blockiness": 1.2}, {"psnr_db": math.inf}]
)
def test_a_legend_stands_whatever_axes_are_empty(values):
    rows = [row(level=level, **values) for level in PSNR]
    plots = draw(rows)
    if values == {"psnr_db": math.inf}:
        assert plots == []
        return
    (plot,) = plots
    assert plot.svg.count(">compressed</text>") == plot.svg.count(">enhanced</text>") == 1
    assert ("no picture with finite values" in plot.svg) == ("psnr_db" in values)


def test_the_caption_says_of_which_pictures_curves_are():
    (plot,) = draw([*levels(), *levels("b.png"), *levels("equal.png", psnr_db=math.inf), row("late.png", 70)])
    assert plot.caption == (
        "photos, jpeg: means over the pictures that all levels have (3), by bits per pixel. "
        "Left out, since a value is not finite: PSNR dB 1."
    )


@pytest.mark.parametrize(
    ("low", "high"), [(1.24, 1.55), (0.74, 1.8), (0.02, 9), (0.5, 1.3), (0.9, 3), (0.0101, 0.0102)]
)
def test_axes_of_rate_have_round_numbers(low, high):
    pytest.importorskip("matplotlib")
    from subjectiveqe.evaluating.plots import _ticks

    ticks = _ticks(low, high)
    assert 3 <= len(ticks) <= 10
    assert all(low <= tick <= high and len(f"{tick:g}") <= 7 for tick in ticks)


def test_drawings_are_named_and_share_no_id():
    plots = draw([*levels(set_name='a "<b>'), *levels(set_name="b")])
    ids = [found for plot in plots for found in re.findall(r'\bid="([^"]+)"', plot.svg)]
    assert len(plots) == 2
    assert len(ids) == len(set(ids)) > 20
    for plot in plots:
        used = re.findall(r'(?:url\(|href=")#([^")]+)', plot.svg)
        assert used
        assert set(used) <= set(ids)
        assert ">bits per pixel</text>" in plot.svg
        assert ">higher is better</text>" in plot.svg
    assert plots[0].svg.startswith('<svg role="img" aria-label="Rate-distortion curves of a &quot;&lt;b&gt;, jpeg"')


# ---------------------------------------------------------------- tables of the documentation


@pytest.mark.parametrize("is_enhanced", [True, False])
def test_the_tables_of_the_documentation_take_missing_values(tmp_path, monkeypatch, capsys, is_enhanced):
    path = Path(__file__).parents[1] / "benchmarks" / "benchmark_table.py"
    spec = importlib.util.spec_from_file_location("benchmark_table", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = [row(level=level, psnr_db=math.inf, lpips=0.0, is_enhanced=is_enhanced) for level in PSNR]
    summary, _, _ = write(tmp_path, rows)
    monkeypatch.setattr(sys, "argv", ["benchmark_table.py", str(summary.json)])
    script.main()
    out = capsys.readouterr().out
    cells = "– → – | 0.0000 → 0.0000" if is_enhanced else "– | 0.0000"
    assert f"| photos | jpeg 10 | 1 | 7.81 | {cells} |" in out
    assert ("| photos | jpeg | – | – |" in out) == is_enhanced
