"""What the command draws while it works, and when."""

import subprocess
import sys
from contextlib import contextmanager

from PIL import Image

from subjectiveqe import terminal

RUN = """
import sys
from subjectiveqe import terminal
from subjectiveqe.cli import main
terminal._AT_ONCE_S = 0
sys.argv = ["sqe", "enhance", *sys.argv[1:]]
assert main() == 0
print("rich" in sys.modules)
"""


def test_a_name_in_a_bar_may_hold_anything(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with terminal.bar("a{b}[red].jpg") as progress:
        progress(1, 2)
    assert "a{b}[red].jpg" in capsys.readouterr().err


def test_a_bar_is_drawn_where_work_takes_a_while(monkeypatch):
    seen, now_s = [], [5.0]

    @contextmanager
    def record(what):
        seen.append(what)
        yield lambda done, total: seen.append((done, total))
        seen.append("ended")

    monkeypatch.setattr(terminal, "bar", record)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now_s[0])
    with terminal.batch_progress(is_drawn=True, as_json=False) as progress:
        progress.started(3)
        now_s[0] += 0.9
        progress.advanced(0.2)
        assert seen == []
        for share in (0.4, 0.6):
            now_s[0] += 0.2
            progress.advanced(share)
    assert seen == ["files", (0.4, 3), (0.6, 3), "ended"]


def test_nothing_is_loaded_to_draw_with_where_nobody_looks(tmp_path):
    """It would be a tenth of the second in which a small picture is done."""
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "a.jpg")
    command = [sys.executable, "-c", RUN, str(tmp_path / "a.jpg"), "-o", str(tmp_path / "b.jpg")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
