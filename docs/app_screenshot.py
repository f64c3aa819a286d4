"""Makes `app.png` for the practitioner's page: the web page with a bundled sample at JPEG QF 12.

python docs/app_screenshot.py
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from subjectiveqe.samples import samples

QF = 12
WIDTH, HEIGHT = 1280, 900


def main() -> None:
    """Serves the page, drops the sample and its original, and takes the picture."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    command = [sys.executable, "-m", "subjectiveqe", "app", "--no-browser"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        original, source = Path(folder) / "coffee.png", Path(folder) / "coffee.jpg"
        sample = next(path for path in samples() if path.stem == "coffee")
        with Image.open(sample) as picture:
            picture.save(original)
            picture.convert("RGB").save(source, quality=QF)
        address = re.search(r"serving (\S+);", server.stdout.readline())[1]
        tab = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]).new_page(
            viewport={"width": WIDTH, "height": HEIGHT}
        )
        tab.goto(address)
        tab.locator("#source input[type=file]").set_input_files(source)
        tab.locator("#download:enabled").wait_for()
        tab.locator("#original input[type=file]").set_input_files(original)
        tab.get_by_role("cell", name="LPIPS").wait_for()
        tab.wait_for_timeout(1000)  # the progress fades out
        tab.screenshot(path=Path(__file__).parent / "app.png", full_page=True)
        server.terminate()


if __name__ == "__main__":
    main()
