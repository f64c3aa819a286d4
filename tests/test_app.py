"""The web page, driven in a real browser."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image

if importlib.util.find_spec("gradio") is None:  # imported by the server alone: it leaves an event loop behind
    pytest.skip("no Gradio here", allow_module_level=True)

from subjectiveqe import app, metrics
from subjectiveqe.cli import main
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.errors import ConfigError, SubjectiveQEError
from subjectiveqe.images import read_rgb, vips_profile
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
import sys
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        print("connects to", arguments[1][0], flush=True)
sys.addaudithook(watch)
from subjectiveqe.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a page that is being served, by a process that connects to nobody but itself and leaves nothing behind."""
    log, temporary = tmp_path_factory.mktemp("app") / "log", tmp_path_factory.mktemp("temporary")
    options = ["--no-browser", "--max-megapixels", "0.2", "--runtime", "onnxruntime"]
    nobody = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "socks5://127.0.0.1:9")
    environment = os.environ | nobody | {"TMPDIR": str(temporary)}
    with log.open("wb") as file:
        command = [sys.executable, "-c", WATCHED, "app", *options]
        server = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    deadline_s = time.monotonic() + PATIENCE_MS / 1000
    while not (found := re.search(r"serving (\S+);", log.read_text())):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.1)
    yield found[1]
    assert BROWSER is None or list(temporary.rglob("*.jpg"))
    server.terminate()
    assert server.wait(PATIENCE_MS / 1000) == 0, log.read_text()
    assert not list(temporary.iterdir())
    assert "Warning" not in log.read_text()
    assert "Traceback" not in log.read_text()
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
        tab.set_default_timeout(120_000)  # in ms; a busy machine takes long to show the page
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


def take_home(page, to):
    page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
    with page.expect_download() as waiting:
        page.locator("#download").click()
    waiting.value.save_as(to)
    return to.read_bytes()


def test_the_download_is_of_the_strength_that_is_shown(page, photo, tmp_path):
    page.locator("#source input[type=file]").set_input_files(photo[0])
    strongest = take_home(page, tmp_path / "strongest.jpg")
    page.locator("#strength input[type=range]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.locator("#download:disabled").wait_for(timeout=PATIENCE_MS)
    weaker = take_home(page, tmp_path / "weaker.jpg")
    command = ["enhance", photo[0], "-o", tmp_path / "command.jpg", "--runtime", "onnxruntime", "--strength", "0.8"]
    assert run(*command) == 0
    assert weaker == (tmp_path / "command.jpg").read_bytes() != strongest
    box = page.locator("#strength input[type=number]")
    box.fill("1")
    box.press("Enter")
    page.locator("#download:disabled").wait_for(timeout=PATIENCE_MS)
    assert take_home(page, tmp_path / "again.jpg") == strongest


DROP = """
([place, name, content]) => {
  const dropped = new DataTransfer();
  dropped.items.add(new File([Uint8Array.from(atob(content), one => one.charCodeAt(0))], name));
  const event = new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true });
  document.querySelector(place).dispatchEvent(event);
}
"""


@pytest.mark.parametrize("place", ["#source", "h1"])
def test_another_picture_may_be_dropped_anywhere(page, photo, place):
    page.locator("#source input[type=file]").set_input_files(photo[0])
    page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
    page.evaluate(DROP, [place, "other.jpg", base64.b64encode(photo[0].read_bytes()).decode()])
    page.locator("#source").get_by_text("other").wait_for(timeout=PATIENCE_MS)
    page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert waiting.value.suggested_filename == "other-enhanced.jpg"


def test_an_original_of_another_size_does_not_hide_the_result(page, photo, tmp_path):
    Image.new("RGB", (10, 20)).save(tmp_path / "other.png")
    page.locator("#source input[type=file]").set_input_files(photo[0])
    page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
    page.locator("#original input[type=file]").set_input_files(tmp_path / "other.png")
    page.get_by_text("the original is 10x20 px, the picture 256x192").wait_for(timeout=PATIENCE_MS)
    assert page.get_by_role("cell", name="bytes").is_visible()
    assert page.locator("#download:enabled").count() == 1
    page.locator("#original").get_by_label("Clear").click()
    Image.new("RGB", (600, 400)).save(tmp_path / "large.png")
    page.locator("#original input[type=file]").set_input_files(tmp_path / "large.png")
    page.get_by_text("the original has 0.24 megapixels").wait_for(timeout=PATIENCE_MS)


def test_what_is_wrong_is_said(page, photo, tmp_path):
    Image.new("RGB", (600, 400)).save(tmp_path / "large.png")
    page.locator("#source input[type=file]").set_input_files(tmp_path / "large.png")
    page.get_by_text("0.24 megapixels, this page takes 0.2").wait_for(timeout=PATIENCE_MS)
    page.reload()
    (tmp_path / "damaged.jpg").write_bytes(photo[0].read_bytes()[:700])
    page.locator("#source input[type=file]").set_input_files(tmp_path / "damaged.jpg")
    page.get_by_text("cannot be decoded").wait_for(timeout=PATIENCE_MS)


def test_other_sites_get_no_answer(address):
    """Nor is anything handed on from elsewhere: the server's process says to whom it connects."""
    for path, headers in (
        ("config", {"Host": "evil.example"}),
        ("config", {"Origin": "http://evil.example"}),
        ("gradio_api/file=http://192.0.2.1/a.jpg", {}),  # of documentation, nobody's
    ):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(address + path, headers=headers))
    assert urllib.request.urlopen(address + "config").status == 200


AT_THE_DESK = """
import sys, threading
from pathlib import Path
from types import SimpleNamespace
from subjectiveqe.page import _Desk
source, original, large, folder = sys.argv[1:]
me = SimpleNamespace(session_hash="me")
desk = _Desk(None, "onnxruntime", 1, Path(folder), threading.Event())
def made(*chosen):
    desk.want("an earlier one", 0.2, me)
    [got] = desk.work(large, 1.0, me, lambda *_, **__: desk.want(*chosen, me))
    return isinstance(got[1], str)
print([made(large, 1.0), made(large, 0.5), made(None, 1.0), made("other.jpg", 1.0), made(large, 1.0)])
print([table.split("\\n")[0] for table in desk.compare(source, source, original, me)])
desk.leave(me)
print(list(desk.compare(source, source, original, me)), desk._wanted)
"""


def test_nobody_waits_for_what_is_not_wanted_any_more(photo, tmp_path):
    """Another picture, or another strength, ends the work on the one before, and a page that is left all of it."""
    command = [sys.executable, "-c", AT_THE_DESK, *photo, samples()[0], tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "[True, False, False, False, True]",
        "['measuring ...', '| | before | after |']",
        "['measuring ...', ''] {}",
    ]


def test_a_strength_that_is_typed_stays_within(page, photo):
    page.locator("#source input[type=file]").set_input_files(photo[0])
    page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
    box = page.locator("#strength input[type=number]")
    for typed in ("5", ""):
        box.fill(typed)
        box.press("Enter")
        page.locator("#download:enabled").wait_for(timeout=PATIENCE_MS)
        assert box.input_value() == "1"
    assert page.get_by_text("Error").count() == 0


def test_all_frames_count_towards_the_size(tmp_path):
    frames = [Image.new("RGB", (100, 100), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        app.check_size(tmp_path / name, 0.03, "it")
        with pytest.raises(ConfigError, match=r"it has 0\.03 megapixels, this page takes 0\.02"):
            app.check_size(tmp_path / name, 0.02, "it")


def test_the_tables_say_what_the_metrics_say(photo, tmp_path):
    source, original = photo
    shares = []
    out, table = app.enhance(source, tmp_path, Enhancer(runtime="onnxruntime"), shares.append)
    assert f"| bytes | {source.stat().st_size:,} | {out.stat().st_size:,} |" in table
    assert "256 x 192 px" in table
    assert shares[-1] == 1
    gt = read_rgb(original)
    lpips = [metrics.lpips(read_rgb(path), gt) for path in (source, out)]
    assert f"| LPIPS | {lpips[0]:.4f} | {lpips[1]:.4f} |" in app.measure(source, out, original)


def test_the_size_is_that_of_the_upright_picture(photo, tmp_path):
    with Image.open(photo[0]) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.jpg", exif=exif)
    _, table = app.enhance(tmp_path / "turned.jpg", tmp_path, Enhancer(runtime="onnxruntime"))
    assert "192 x 256 px" in table


def test_pictures_too_small_for_a_measure_leave_it_out(tmp_path):
    Image.new("RGB", (8, 9), "red").save(tmp_path / "small.png")
    table = app.measure(*[tmp_path / "small.png"] * 3)
    assert "| PSNR, dB | inf | inf |" in table
    assert "| LPIPS | – | – |" in table


def test_an_original_of_another_picture_is_refused(photo, tmp_path):
    Image.new("RGB", (10, 20)).save(tmp_path / "other.png")
    with pytest.raises(ConfigError, match="10x20 px, the picture 256x192"):
        app.measure(photo[0], photo[0], tmp_path / "other.png")
    (tmp_path / "damaged.jpg").write_bytes(photo[0].read_bytes()[:700])
    with pytest.raises(SubjectiveQEError, match="cannot be"):
        app.enhance(tmp_path / "damaged.jpg", tmp_path, Enhancer(runtime="onnxruntime"))


def test_what_is_shown_keeps_its_colours(tmp_path):
    profile = vips_profile("p3")
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "wide.png", icc_profile=profile)
    Image.new("L", (40, 30), 9).save(tmp_path / "plain.png")
    before, after = app.show(tmp_path / "wide.png", tmp_path / "plain.png", tmp_path)
    with Image.open(before) as shown:
        assert shown.info["icc_profile"] == profile
        assert shown.getpixel((0, 0)) == (255, 0, 0)
    with Image.open(after) as shown:
        assert "icc_profile" not in shown.info


def test_what_keeps_it_from_being_served_is_said(address, monkeypatch, capsys):
    port = address.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "subjectiveqe", "app", "--port", port, "--no-browser"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_MS / 1000, check=False)
    assert second.returncode == 2
    assert f"127.0.0.1:{port}: cannot be listened on" in second.stderr
    assert run("app", "--no-browser", "--host", "192.0.2.1") == 2  # of documentation, nobody's
    assert "192.0.2.1: is no address of this machine" in capsys.readouterr().err
    for size in ("0", "-3", "nan", "inf"):
        assert run("app", "--no-browser", "--max-megapixels", size) == 2
        assert "max_megapixels: expected more than 0" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "subjectiveqe.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run("app") == 2
    assert 'pip install "subjectiveqe[app]"' in capsys.readouterr().err
