"""The demo with a stand-in model; the one with the bundled model is `sqe demo` itself, run by .ci/run."""

from __future__ import annotations

import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from subjectiveqe.cli import app
from subjectiveqe.demo import CASES, make_table, run_demo
from subjectiveqe.errors import ImageError, ModelError
from subjectiveqe.images import write_png
from subjectiveqe.samples import samples


@pytest.fixture(scope="module")
def summary(tmp_path_factory, tiny_model):
    return run_demo(tmp_path_factory.mktemp("demo"), tiny_model)


def test_every_picture_goes_through_every_codec(summary):
    shown = [(row.info.name, row.info.codec, row.info.level) for row in summary.rows]
    assert shown == [(path.stem, codec, level) for codec, level in CASES for path in samples()]
    assert summary.failed == []


def test_pictures_are_cropped_to_multiples_of_8(summary):
    assert {row.info.name: (row.info.height, row.info.width) for row in summary.rows} == {
        "astronaut": (512, 512),
        "chelsea": (296, 448),
        "coffee": (400, 600),
    }


def test_the_page_is_one_file_with_a_slider(summary):
    page = summary.html.read_text()
    assert 'type="range"' in page
    assert re.findall(r"""(?:src|href)=["'](?!data:|\#)[^"']+""", page) == []
    assert page.count("data:image/") == 3 * len(summary.rows)  # before, after, original


def test_the_table_fits_80_columns_and_shows_before_and_after(summary):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(make_table(summary.rows))
    lines = capture.get().splitlines()
    assert len(lines) == 2 + 2 * len(summary.rows)
    assert "…" not in capture.get()
    astronaut = summary.rows[0]
    assert lines[2].split() == [
        *("astronaut", "hevc", "37", str(astronaut.info.num_bytes), f"{astronaut.info.bpp:.2f}", "before"),
        *(
            format(astronaut.before[name], form)
            for name, form in (("psnr_db", ".2f"), ("ssim", ".4f"), ("lpips", ".4f"))
        ),
        f"{astronaut.before['blockiness']:.3f}",
    ]


def test_own_pictures_take_the_place_of_the_bundled_ones(tmp_path, tiny_model, draw_image):
    name = "a [red]photo with a very long name.png"
    write_png(tmp_path / name, draw_image((1100, 70)))
    summary = run_demo(tmp_path / "demo", tiny_model, pictures=[tmp_path / name])
    assert [(row.info.codec, row.info.height, row.info.width) for row in summary.rows] == [
        (codec, 1024, 64) for codec, _ in CASES
    ]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(make_table(summary.rows))
    assert "a [red]photo …" in capture.get()
    assert len(capture.get().splitlines()) == 2 + 2 * len(summary.rows)


def test_pictures_are_named_one_by_one(tmp_path, tiny_model):
    with pytest.raises(ImageError, match=r"is a folder; name some pictures in it, as .*\*\.jpg"):
        run_demo(tmp_path / "demo", tiny_model, pictures=[tmp_path])


@pytest.mark.parametrize(("content", "said"), [(b"text", "cannot be read as a picture"), (None, "no such file")])
def test_own_pictures_that_are_none_are_told_before_anything_is_written(tmp_path, content, said):
    if content:
        (tmp_path / "a.jpg").write_bytes(content)
    told = CliRunner().invoke(app, ["demo", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "demo")])
    assert isinstance(told.exception, ImageError)
    assert said in str(told.exception)
    assert not (tmp_path / "demo").exists()


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx"):
        run_demo(tmp_path / "demo", tmp_path / "none.onnx")
    assert not (tmp_path / "demo").exists()
