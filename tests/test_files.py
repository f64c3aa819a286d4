"""Files appear complete or not at all, and are told apart."""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from subjectiveqe.enhancing.video_files import list_videos
from subjectiveqe.errors import ConfigError
from subjectiveqe.files import atomic_path, list_files, refuse_input, write_text


def test_an_interrupted_file_leaves_the_old_one_alone(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with suppress(KeyboardInterrupt), atomic_path(tmp_path / "a.txt") as aside:
        aside.write_text("ne")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_an_error_without_a_name_gets_that_of_the_file(tmp_path):
    with pytest.raises(OSError, match=r"a\.txt") as caught, atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.txt")


def test_what_is_being_written_is_hidden(tmp_path):
    with atomic_path(tmp_path / "a.png") as aside:
        assert list_files(tmp_path, {".png"}) == []
        assert aside.suffix == ".png"


@pytest.mark.skipif(sys.platform == "win32", reason="paths are limited there, too")
def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / f"a.{'b' * 253}"
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_another_name_of_an_input_is_the_input(tmp_path):
    (tmp_path / "a.onnx").write_text("a")
    (tmp_path / "b.onnx").hardlink_to(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="is an input"):
        refuse_input(tmp_path / "b.onnx", [tmp_path / "a.onnx"])


def test_a_file_that_nobody_may_look_at_is_listed(tmp_path, monkeypatch):
    """So that the batch says what is wrong with it."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "a.png").write_text("")
    monkeypatch.setattr(Path, "is_file", refuse)
    assert list_files(tmp_path, {".png"}) == [tmp_path / "a.png"]


def test_videos_of_cameras_are_told_from_typescript(tmp_path):
    (tmp_path / "a.mts").write_bytes(bytes([1, 2, 3, 4]) + b"G" + bytes(200))
    (tmp_path / "b.mts").write_bytes(b"export const G = 1")
    (tmp_path / "c.ts").write_bytes(b"G" + bytes(200))
    (tmp_path / "d.ts").write_bytes(b"var G = 1")
    assert [path.name for path in list_videos(tmp_path)] == ["a.mts", "c.ts"]
