"""The web page, driven in a real browser."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

if importlib.util.find_spec("gradio") is None:  # imported by the server alone: it leaves an event loop behind
    pytest.skip("no Gradio here", allow_module_level=True)

from subjectiveqe import app, metrics
from subjectiveqe.cli import main
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.errors import ConfigError, SubjectiveQEError
from subjectiveqe.images import read_rgb
from subjectiveqe.samples import samples

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CAMERA = "a camera of ours"
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A bad JPEG with EXIF, and what it was."""
    folder = tmp_path_factory.mktemp("photo")
    with Image.open(samples()[0]) as sample:
        picture = sample.convert("RGB").crop((100, 60, 356, 252))
    picture.save(folder / "original.png")
    exif = Image.Exif()
    exif[0x0110] = CAMERA
    picture.save(folder / "bad.jpg", quality=12, exif=exif)
    return folder / "bad.jpg", folder / "original.png"


WATCHED = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background ignores it
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        print("connects to", arguments[1][0], flush=True)
sys.addaudithook(watch)
from subjectiveqe.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a page that is being served, by a process that connects to nobody but itself."""
    log = tmp_path_factory.mktemp("app") / "log"
    options = ["--no-browser", "--max-megapixels", "0.2", "--runtime", "onnxruntime"]
    with log.open("wb") as file:
        server = subprocess.Popen([sys.executable, "-c", WATCHED, "app", *options], stdout=file, stderr=file)
    deadline_s = time.monotonic() + PATIENCE_MS / 1000
    while not (found := re.search(r"serving (\S+);", log.read_text())):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.1)
    yield found[1]
    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE_MS / 1000) in (0, 130), log.read_text()
    assert set(re.findall(r"connects to (\S+)", log.read_text())) <= {"127.0.0.1", "localhost", "::1"}


@pytest.fixture
def page(address):
    """A tab with the page; nothing it asks for comes from elsewhere."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        yield tab
        assert asked
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
        browser.close()


def run(*words):
    argv, sys.argv = sys.argv, ["sqe", *map(str, words)]
    try:
        return main()
    finally:
        sys.argv = argv


def test_a_picture_goes_in_and_comes_back_as_the_command_makes_it(page, photo, tmp_path):
    source, original = photo
    page.locator("#source input[type=file]").set_input_files(source)
    handle = page.get_by_test_id("slider")
    handle.wait_for(timeout=PATIENCE_MS)
    page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
    assert page.get_by_role("cell", name="bytes").is_visible()
    assert page.get_by_role("cell", name="LPIPS").count() == 0

    before = handle.bounding_box()
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.down()
    page.mouse.move(before["x"] - 200, before["y"] + before["height"] / 2, steps=5)
    page.mouse.up()
    assert handle.bounding_box()["x"] < before["x"] - 100

    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert waiting.value.suggested_filename == "bad-enhanced.jpg"
    waiting.value.save_as(tmp_path / "page.jpg")
    assert run("enhance", source, "-o", tmp_path / "command.jpg", "--runtime", "onnxruntime") == 0
    assert (tmp_path / "page.jpg").read_bytes() == (tmp_path / "command.jpg").read_bytes()
    with Image.open(tmp_path / "page.jpg") as picture:
        assert picture.getexif()[0x0110] == CAMERA

    page.locator("#original input[type=file]").set_input_files(original)
    page.get_by_role("cell", name="LPIPS").wait_for(timeout=PATIENCE_MS)


def test_what_is_wrong_is_said(page, photo, tmp_path):
    Image.new("RGB", (600, 400)).save(tmp_path / "large.png")
    page.locator("#source input[type=file]").set_input_files(tmp_path / "large.png")
    page.get_by_text("0.24 megapixels, this page takes 0.2").wait_for(timeout=PATIENCE_MS)
    page.reload()
    (tmp_path / "damaged.jpg").write_bytes(photo[0].read_bytes()[:700])
    page.locator("#source input[type=file]").set_input_files(tmp_path / "damaged.jpg")
    page.get_by_text("cannot be decoded").wait_for(timeout=PATIENCE_MS)


def test_all_frames_count_towards_the_size(tmp_path):
    frames = [Image.new("RGB", (100, 100), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        app._check_size(tmp_path / name, 0.03)
        with pytest.raises(ConfigError, match=r"the picture has 0\.03 megapixels, this page takes 0\.02"):
            app._check_size(tmp_path / name, 0.02)


def test_the_table_says_what_the_metrics_say(photo, tmp_path):
    source, original = photo
    shares = []
    out, table, shown = app.enhance_and_measure(
        source, tmp_path, Enhancer(runtime="onnxruntime"), original, shares.append
    )
    pictures = [read_rgb(path) for path in (source, out)]
    assert all(map(np.array_equal, shown, pictures))
    gt = read_rgb(original)
    assert f"| LPIPS | {' | '.join(f'{metrics.lpips(picture, gt):.4f}' for picture in pictures)} |" in table
    assert f"| bytes | {source.stat().st_size:,} | {out.stat().st_size:,} |" in table
    assert "256 x 192 px" in table
    assert shares[-1] == 1


def test_an_original_of_another_picture_is_refused(photo, tmp_path):
    Image.new("RGB", (10, 20)).save(tmp_path / "other.png")
    with pytest.raises(ConfigError, match="10x20 px, the picture 256x192"):
        app.enhance_and_measure(photo[0], tmp_path, Enhancer(runtime="onnxruntime"), tmp_path / "other.png")
    (tmp_path / "damaged.jpg").write_bytes(photo[0].read_bytes()[:700])
    with pytest.raises(SubjectiveQEError, match="cannot be"):
        app.enhance_and_measure(tmp_path / "damaged.jpg", tmp_path, Enhancer(runtime="onnxruntime"))


def test_a_taken_port_and_a_missing_extra_are_said(address, monkeypatch, capsys):
    port = address.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "subjectiveqe", "app", "--port", port, "--no-browser"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_MS / 1000, check=False)
    assert second.returncode == 2
    assert f"127.0.0.1:{port}: cannot be listened on" in second.stderr
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run("app") == 2
    assert 'pip install "subjectiveqe[app]"' in capsys.readouterr().err
