"""The command `sqe`: exit codes, one-line errors, and the whole way from clean pictures to better ones."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import pyvips
import typer
from PIL import Image

from subjectiveqe import __version__
from subjectiveqe.cli import app, main
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import enhance_stream
from subjectiveqe.errors import ConfigError
from subjectiveqe.formats.saving import Saving
from subjectiveqe.images import read_rgb, write_png

LIMITS_FILES = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
HEAVY = ("torch", "onnxruntime", "onnx", "av", "pyvips", "PIL", "lmdb", "openvino")


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a failed command prints."""
        lines = self.err.strip().splitlines()
        assert self.code == 2, self
        assert len(lines) == 1, self
        assert lines[0].startswith("error: "), self
        return lines[0]


@pytest.fixture
def sqe(monkeypatch, capsys):
    """Runs a command line in this process."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["sqe", *map(str, words)])
        capsys.readouterr()
        code = main()
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def clean(tmp_path, draw_image) -> Path:
    """A folder of three clean pictures."""
    for seed in range(3):
        write_png(tmp_path / "clean" / f"{seed}.png", draw_image((72, 96 + seed), seed))
    return tmp_path / "clean"


@pytest.fixture
def broken(clean) -> Path:
    """A PNG cut short, among the clean pictures."""
    path = clean / "broken.png"
    path.write_bytes((clean / "0.png").read_bytes()[:200])
    return path


def run_process(*words: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "subjectiveqe", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


# ---------------------------------------------------------------- start


@pytest.mark.parametrize("start", ["import subjectiveqe", "from subjectiveqe.cli import main; main()"])
def test_starting_loads_nothing_heavy(start):
    code = f"{start}; import sys; print(sorted(set({HEAVY}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_version(sqe):
    assert sqe("--version") == (0, f"subjectiveqe {__version__}\n", "")


def test_help_names_every_command(sqe):
    ran = sqe("--help")
    assert ran.code == 0
    for command in typer.main.get_command(app).commands:
        assert f"\n  {command} " in ran.out


@pytest.mark.parametrize("words", [["nonsense"], ["enhance"], ["enhance", "a.png", "-o", "b.png", "--no-such"]])
def test_wrong_usage_ends_with_2(sqe, words):
    assert sqe(*words).code == 2


@pytest.mark.parametrize("words", [["prepare", "in", "-o", "out", "--jobs", -1], ["app", "--port", 70000]])
def test_an_option_out_of_its_range_ends_with_2_and_is_named(sqe, words):
    ran = sqe(*words)
    assert ran.code == 2
    assert f"Invalid value for '{words[-2]}'" in ran.err
    assert "Traceback" not in ran.err


def test_what_pillow_says_of_large_pictures_is_not_passed_on(tmp_path, tiny_model):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])  # which Pillow reads
    code = f"import PIL.Image; PIL.Image.MAX_IMAGE_PIXELS = {40 * 30 - 1}; from subjectiveqe.cli import main; main()"
    words = ["enhance", tmp_path / "moving.png", "-o", tmp_path / "out.png", "--model", tiny_model, "--quiet"]
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.stdout, ran.stderr) == ("", "")
    assert (tmp_path / "out.png").exists()


def test_debug_adds_the_traceback_wherever_it_stands(sqe, tmp_path):
    plain = sqe("weights", "import", tmp_path / "none")
    assert "Traceback" not in plain.err
    for words in (
        ("--debug", "weights", "import", tmp_path / "none"),
        ("weights", "import", tmp_path / "none", "--debug"),
    ):
        ran = sqe(*words)
        assert ran.code == 2
        assert "Traceback" in ran.err
        assert ran.err.endswith(plain.err)


def test_wildcards_are_left_to_typer(sqe, monkeypatch, tmp_path):
    """Which expands them on Windows, where shells do not, if it reads the words itself."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    monkeypatch.setattr("typer.core.os", SimpleNamespace(**vars(os) | {"name": "nt"}))
    ran = sqe("enhance", tmp_path / "*.png", "-o", tmp_path / "out", "--debug", "--dry-run")
    assert ran.code == 0
    assert sorted(line.split(" -> ")[0] for line in ran.out.splitlines()) == [
        str(tmp_path / name) for name in ("a.png", "b.png")
    ]


def test_letters_that_a_redirected_output_does_not_have_are_no_error(tmp_path):
    (tmp_path / "\u732b.png").touch()
    ran = run_process(
        "enhance", tmp_path, "-o", tmp_path / "out", "--dry-run", env={**os.environ, "PYTHONIOENCODING": "cp1252"}
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\\u732b.png" in ran.stdout


def test_ctrl_c_ends_with_130(sqe, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subjectiveqe.weights.list_weights", interrupt)
    assert sqe("weights", "list").code == 130


def test_ctrl_c_says_how_to_go_on(sqe, monkeypatch):
    def interrupt(*_, **__) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subjectiveqe.config.read_recipe", interrupt)
    monkeypatch.setattr("subjectiveqe.enhancing.plan.plan_jobs", interrupt)
    on = "--resume goes on from the last checkpoint"
    replaced = "finished pictures have been replaced; to go on, name only the others"
    for words, said in ((["train", "a.yaml"], on), (["enhance", "a.png", "--in-place", "--dry-run"], replaced)):
        for is_person in (True, False):
            monkeypatch.setattr(sys.stderr, "isatty", lambda is_person=is_person: is_person)
            ended = sqe(*words)
            assert (ended.code, ended.err) == (130, f"interrupted; {said}\n" if is_person else "")


# ---------------------------------------------------------------- prepare


def test_prepare_makes_a_store_that_checks(sqe, clean, tmp_path):
    store = tmp_path / "pairs.lmdb"
    ran = sqe("prepare", clean, "-o", store, "--level", 22, "--level", 37, "--jobs", 1)
    assert ran == (0, f"{store}: 6 pairs of 3 pictures\n", "")
    assert sqe("prepare", "--check", store) == (0, f"{store}: 6 pairs, all sound\n", "")


def test_prepare_lists_unreadable_pictures_and_ends_with_1(sqe, clean, broken, tmp_path):
    ran = sqe(
        "prepare", clean, "-o", tmp_path / "pairs", "--codec", "jpeg", "--range", "10:90", "--draws", 2, "--jobs", 1
    )
    assert ran.code == 1
    assert ran.out == f"{tmp_path / 'pairs'}: 6 pairs of 3 pictures\n"
    assert ran.err.count("\n") == 1
    assert str(broken) in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--level", 52], "52"),
        (["--codec", "jpeg", "--level", 0], "qf must be 1..100"),
        (["--codec", "hecv", "--level", 37], 'did you mean "hevc"'),
        (["--range", "22-42"], "LOW:HIGH"),
        (["--range", "42:22"], "--range"),
        (["--level", 37, "--range", "22:42"], "not both"),
        ([], '"--level"'),
        (["--level", 37, "--layout", "zip"], "lmdb, png"),
        (["--level", 37, "--chroma", "411"], "411"),
        (["--codec", "hm", "--level", 37, "--encoder", "no/TAppEncoderStatic"], "no/TAppEncoderStatic"),
        (["--codec", "hm", "--level", 37], "encoder"),
        (["--level", 37, "--draws", 3], "--draws and --seed go with --range"),
        (["--level", 37, "--hold-out-every", 5], "goes with --split train or valid"),
    ],
)
def test_prepare_refuses_what_cannot_be(sqe, clean, tmp_path, options, said):
    ran = sqe("prepare", clean, "-o", tmp_path / "pairs", *options)
    assert said in ran.error
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize(
    ("codec", "options", "said"),
    [
        (
            "hm:37",
            ["--encoder", "no/Encoder", "--config", "no/hm.cfg"],
            "hm: no encoder TAppEncoderStatic at no/Encoder;",
        ),
        ("jpeg:10", ["--encoder", "no/Encoder"], "--encoder"),
    ],
)
def test_benchmark_takes_hm_as_it_is_given(sqe, clean, tmp_path, codec, options, said):
    ran = sqe("benchmark", clean, "-o", tmp_path / "b", "--model", "none", "--codec", codec, *options)
    assert said in ran.error


def test_what_a_check_would_not_do_is_refused(sqe, clean, tmp_path):
    ran = sqe("prepare", clean, "-o", tmp_path / "new", "--codec", "webp", "--level", 10, "--check", tmp_path / "store")
    assert ran.error.startswith("error: SOURCE, --out, --codec, --level: not for --check; leave it out")
    ran = sqe("prepare", "--check", tmp_path / "store", "--split", "valid", "--hold-out-every", 7, "--jobs", 3)
    assert ran.error.startswith("error: --split, --hold-out-every, --jobs: not for --check; leave it out")


def test_a_folder_that_is_called_as_a_video_is_is_one_of_pictures(sqe, clean, tmp_path):
    shutil.copytree(clean, tmp_path / "holiday.ts")
    ran = sqe("enhance", tmp_path / "holiday.ts", "-o", tmp_path / "better", "--dry-run", "--json")
    jobs = [json.loads(line) for line in ran.out.splitlines()]
    assert [job["status"] for job in jobs] == ["planned"] * len(list(clean.iterdir()))
    assert {Path(job["target"]).parent for job in jobs} == {tmp_path / "better"}


def test_a_home_that_the_shell_leaves_is_found(sqe, clean, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert sqe("enhance", clean / "0.png", "--out=~/better", "--dry-run").out.endswith(
        f"{tmp_path / 'better' / '0.png'}\n"
    )


def test_prepare_needs_a_source_or_check(sqe):
    assert "--check" in sqe("prepare").error


@pytest.mark.parametrize("command", ["prepare", "enhance"])
def test_an_empty_folder_is_an_error(sqe, tmp_path, tiny_model, command):
    (tmp_path / "empty").mkdir()
    options = {"prepare": ["--level", 37], "enhance": ["--model", tiny_model]}[command]
    ran = sqe(command, tmp_path / "empty", "-o", tmp_path / "out", *options)
    assert "empty" in ran.error
    assert "no pictures" in ran.error
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- enhance


def test_enhance_one_file_and_a_folder(sqe, clean, tiny_model, tmp_path):
    one = tmp_path / "one.png"
    assert sqe("enhance", clean / "0.png", "-o", one, "--model", tiny_model, "--strength", 0).code == 0
    assert np.array_equal(read_rgb(one), read_rgb(clean / "0.png"))  # strength 0 of the stand-in changes nothing
    ran = sqe("enhance", clean, "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 0
    assert re.fullmatch(
        r"3 enhanced, 0 skipped, 0 failed; 0\.0 megapixels in \d+\.\d s, \d+\.\d\d megapixels a second\n", ran.out
    )
    assert ran.err == ""
    assert not np.array_equal(read_rgb(tmp_path / "out" / "0.png"), read_rgb(clean / "0.png"))


def test_enhance_quietly_dryly_and_as_json(sqe, clean, broken, tiny_model, tmp_path):
    out = tmp_path / "out"
    words = ["enhance", clean, "-o", out, "--format", "webp", "--suffix", "-b", "--model", tiny_model]
    dry = sqe(*words, "--dry-run")
    assert dry.out.splitlines()[0] == f"{clean / '0.png'} -> {out / '0-b.webp'}"
    assert not out.exists()
    ran = sqe(*words, "--json")
    assert ran.code == 1
    lines = {Path(line["source"]).name: line for line in map(json.loads, ran.out.splitlines())}
    assert lines["1.png"]["status"] == "done"
    assert lines["1.png"]["target"] == str(out / "1-b.webp")
    assert lines["1.png"]["megapixels"] == pytest.approx(72 * 97 / 1e6)
    assert lines[broken.name]["status"] == "failed"
    assert lines[broken.name]["reason"]
    assert sqe(*words, "--dry-run").out.splitlines()[0].endswith("0-b.webp (exists)")
    planned = json.loads(sqe(*words, "--dry-run", "--json").out.splitlines()[0])
    assert planned == {
        "source": str(clean / "0.png"),
        "target": str(out / "0-b.webp"),
        "status": "planned",
        "exists": True,
    }
    in_place = sqe("enhance", clean, "--in-place", "--dry-run").out.splitlines()[0]
    assert in_place == f"{clean / '0.png'} -> {clean / '0.png'}"  # that it is there goes without saying
    assert json.loads(sqe("enhance", clean, "--in-place", "--dry-run", "--json").out.splitlines()[0])["exists"]
    ran = sqe(*words, "--quiet", "--overwrite")
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert "add --overwrite" in sqe(*words).error


def test_a_name_that_is_empty_is_not_the_current_folder(sqe, clean, monkeypatch):
    monkeypatch.chdir(clean)
    before = Path("0.png").read_bytes()
    for words in (["", "--in-place"], ["0.png", "-o", ""]):
        ran = sqe("enhance", *words)
        assert (ran.code, "expected the name of a file or folder, got nothing" in ran.err) == (2, True)
    assert Path("0.png").read_bytes() == before


def test_a_dry_run_tells_of_what_is_not_there(sqe, clean, tmp_path):
    words = ["enhance", clean / "0.png", tmp_path / "none.jpg", "-o", tmp_path / "out", "--dry-run"]
    ran = sqe(*words)
    assert (ran.code, ran.err) == (1, f"failed: {tmp_path / 'none.jpg'}: no such file\n")
    assert json.loads(sqe(*words, "--json").out.splitlines()[1])["status"] == "failed"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_no_file_is_told(sqe, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    ran = sqe("enhance", tmp_path / "pipe.jpg", "-o", tmp_path / "out")
    assert f"{tmp_path / 'pipe.jpg'}: is no file; give - for standard input" in ran.err


def test_videos_in_a_folder_are_not_passed_over_in_silence(sqe, clean, tmp_path):
    (clean / ".trash").mkdir()
    for name in ("clip.mp4", ".trash/old.mp4"):
        (clean / name).write_bytes(b"a film")
    for name, head in (("tv.ts", b"G"), ("camera.mts", b"\0\0\0\0G"), ("app.ts", b"let G"), ("app.mts", b"import")):
        (clean / name).write_bytes(head)
    ran = sqe("enhance", clean, "-r", "-o", tmp_path / "out", "--dry-run")
    videos = ", ".join(str(clean / name) for name in ("camera.mts", "clip.mp4", "tv.ts"))
    assert ran.err == f"videos are passed over without --videos: {videos}\n"


def test_enhance_from_and_to_standard_streams(clean, tiny_model, tmp_path):
    sqe = [sys.executable, "-m", "subjectiveqe"]
    options = ["--model", str(tiny_model), "--format", "png"]
    picture = (clean / "0.png").read_bytes()
    ran = subprocess.run([*sqe, "enhance", "-", "-o", "-", *options], input=picture, capture_output=True, check=True)
    (tmp_path / "got.png").write_bytes(ran.stdout)
    subprocess.run([*sqe, "enhance", clean / "0.png", "-o", tmp_path / "file.png", *options], check=True)
    assert np.array_equal(read_rgb(tmp_path / "got.png"), read_rgb(tmp_path / "file.png"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dry-run", "--jobs", 2], '--jobs, --dry-run: not for a picture from or to "-"'),
        (["--in-place"], '--in-place: not for a picture from or to "-"'),
        (["-o", "x.png", "--format", "jpeg"], 'is named .png but --format asks for "jpeg"'),
        (["-o", "x.jpg", "--lossless"], "JPEG has no lossless mode here"),
        (["-o", "x.jp2"], "cannot write .jp2; known: jpeg, png"),
        (["-o", "folder"], "folder: name the file for standard input, as folder"),
        (["-o", "."], "is a folder; name the file in it, as better.png"),
    ],
)
def test_streams_refuse_what_would_do_nothing(sqe, clean, tiny_model, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((clean / "0.png").read_bytes())))
    before = list(tmp_path.iterdir())
    assert said in sqe("enhance", "-", "--model", tiny_model, *options).error
    assert list(tmp_path.iterdir()) == before


def test_streams_say_what_is_not_kept(sqe, tiny_model, tmp_path, monkeypatch):
    pixels = np.full((8, 8, 4), 30000, np.uint16)
    deep = pyvips.Image.new_from_array(pixels, interpretation="rgb16").pngsave_buffer()
    words = ["enhance", "-", "-o", tmp_path / "a.jpg", "--overwrite", "--model", tiny_model]
    for options, said in (
        ([], ["16-bit channels become 8-bit, jpeg has no more", "alpha is laid over white, jpeg has none"]),
        (["--quiet"], []),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(deep)))
        assert sqe(*words, *options) == (0, "", "".join(f"warning: standard input: {line}\n" for line in said))


@pytest.mark.parametrize(
    ("stream", "words"), [("stdin", ["-", "-o", "x.png"]), ("stdout", ["a.png", "-o", "-"])], ids=["in", "out"]
)
def test_a_closed_stream_is_named(tiny_model, monkeypatch, stream, words):
    monkeypatch.setattr(sys, stream, None)  # as it is where the shell has closed it
    with pytest.raises(ConfigError, match=r"^-: this standard stream is closed; give a file"):
        enhance_stream(Path(words[0]), Path(words[2]), Enhancer(tiny_model, "onnxruntime"), Saving())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_named(clean, tiny_model):
    command = [
        sys.executable,
        "-m",
        "subjectiveqe",
        "enhance",
        str(clean / "0.png"),
        "-o",
        "-",
        "--model",
        str(tiny_model),
    ]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert ran.stderr.startswith("error: standard output: No space left on device")


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"text", "cannot be read as a picture")])
def test_an_error_of_standard_input_names_it(sqe, tiny_model, monkeypatch, content, said):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert sqe("enhance", "-", "--model", tiny_model).error.startswith(f"error: standard input: {said}")


def test_doctor_says_what_is_there_and_how_to_get_the_rest(sqe, monkeypatch):
    from subjectiveqe.enhancing import runtime

    found = {line.split("  ")[0]: line for line in sqe("doctor", "--no-speed").out.splitlines()}
    assert "megapixels" not in found["onnxruntime"]
    assert "to add it: pip uninstall onnxruntime && pip install" in found["GPU"]
    with monkeypatch.context() as patched:
        patched.setattr(runtime.importlib.util, "find_spec", lambda _: None)
        for name in ("onnxruntime", "openvino"):  # in a process that has imported them
            patched.setitem(sys.modules, name, None)
        without = sqe("doctor", "--no-speed").out
    assert 'to add it: pip install "subjectiveqe"' in without
    assert 'to add it: pip install "subjectiveqe[openvino]"' in without
    assert "megapixels a second with the bundled model" in sqe("doctor").out


def test_enhance_goes_on_after_a_bad_file(sqe, clean, broken, tiny_model, tmp_path):
    ran = sqe("enhance", clean, "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 1
    assert ran.err.startswith(f"failed: {broken}: ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


def test_a_file_named_as_the_stream_does_not_stand_in_its_way(clean, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("a file")
    out = SimpleNamespace(buffer=io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    enhance_stream(clean / "0.png", Path("-"), Enhancer(tiny_model, "onnxruntime"))
    assert out.buffer.getvalue().startswith(b"\x89PNG")


def test_a_dry_run_refuses_what_the_run_does(sqe, clean):
    for options in (["--in-place", "--skip-existing"], ["--in-place", "--overwrite"]):
        assert "--in-place replaces all" in sqe("enhance", clean, *options, "--dry-run").error


def test_what_is_assumed_reaches_the_network(sqe, tmp_path, sample_paths):
    ran = sqe("enhance", sample_paths["coffee"], "-o", tmp_path / "a.png", "--assume", "hevc:37", "--json")
    assert json.loads(ran.out)["taken_for"] == "hevc:37"
    ran = sqe("enhance", sample_paths["coffee"], "-o", tmp_path / "b.png", "--assume", "jpeg:0")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert '"jpeg:0" is nothing that can be assumed' in ran.err


def test_a_file_that_nobody_may_read_is_named_and_the_others_are_done(sqe, clean, tiny_model, tmp_path, monkeypatch):
    locked, access, open_file = clean / "0.png", os.access, Path.open

    def refuse(path, *arguments, **options):
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))
    monkeypatch.setattr(Path, "open", refuse)
    ran = sqe("enhance", locked, clean / "1.png", "-o", tmp_path / "out", "--model", tiny_model)
    assert (ran.code, ran.err) == (1, f"failed: {locked}: cannot be read (Permission denied)\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.png"]


def test_a_dry_run_ends_as_the_run_would_where_a_folder_cannot_be_read(sqe, clean, tmp_path, monkeypatch):
    locked, scan = tmp_path / "locked", os.scandir
    locked.mkdir()

    def refuse(path="."):
        if Path(path) == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for inputs, code in (([locked, clean], 1), ([locked], 2)):
        ran = sqe("enhance", *inputs, "-o", tmp_path / "out", "--dry-run")
        assert (ran.code, ran.err) == (code, f"failed: {locked}: cannot be read (Permission denied)\n")
        ran = sqe("enhance", *inputs, "-o", tmp_path / "out", "--dry-run", "--json")
        told = [job for job in map(json.loads, ran.out.splitlines()) if job["source"] == str(locked)]
        assert (ran.code, ran.err) == (code, "")
        assert (told[0]["status"], told[0]["reason"]) == ("failed", "cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quality", 80], "--quality: not for png; leave it out"),
        (["--chroma", 420, "--format", "tiff"], "--chroma: not for tiff; leave it out"),
        (["--quality", 80, "--format", "gif"], "--quality: not for gif; leave it out"),
    ],
)
def test_options_that_no_result_has_a_use_for_are_refused(sqe, clean, tmp_path, options, said):
    assert sqe("enhance", clean, "-o", tmp_path / "out", *options).error == f"error: {said}"
    shutil.copy(clean / "0.png", clean / "photo.jpg")  # one that has quality and chroma, by its name
    if "--format" not in options:
        assert sqe("enhance", clean, "-o", tmp_path / "out", *options, "--dry-run").code == 0
    assert not (tmp_path / "out").exists()


def test_enhance_that_could_do_nothing_ends_with_2(sqe, broken, tiny_model, tmp_path):
    ran = sqe("enhance", broken, "-o", tmp_path / "out.png", "--model", tiny_model)
    assert ran.code == 2
    assert ran.err.startswith(f"failed: {broken}: ")
    assert not (tmp_path / "out.png").exists()


def test_enhance_never_overwrites_its_source(sqe, clean, tiny_model):
    before = (clean / "0.png").read_bytes()
    assert "overwrite" in sqe("enhance", clean, "-o", clean, "--model", tiny_model).error
    assert (clean / "0.png").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strength", 1.5], "0 (faithful) to 1"),
        (["--runtime", "tensorrt"], "tensorrt"),
        (["--model", "none.onnx"], "none.onnx"),
        (["--tile", -1], "tile_px"),
        (["--crf", 20], "--crf: not for pictures"),
        (["--format", "gif", "--lossless"], "GIF has no lossless mode here"),
        (["--format", "webp", "--lossless", "--quality", 90], "what is lossless has no quality"),
    ],
)
def test_enhance_refuses_what_cannot_be(sqe, clean, tiny_model, tmp_path, options, said):
    model = [] if "--model" in options else ["--model", tiny_model]
    assert said in sqe("enhance", clean, "-o", tmp_path / "out", *model, *options).error
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_network_is_named(sqe, clean, tmp_path):
    import torch

    foreign = tmp_path / "resnet.pt"
    torch.save({"state_dict": {"layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3)}}, foreign)
    for words in (
        ["enhance", clean, "-o", tmp_path / "out", "--model", foreign],
        ["export", foreign, "-o", tmp_path / "x.onnx"],
    ):
        assert 'resnet.pt: tensor "layer1.0.conv1.weight" belongs to no generator' in sqe(*words).error
    assert not (tmp_path / "x.onnx").exists()


def allow_4_kb() -> None:
    """Stands in for a full disk: no file of this process grows beyond 4 kB."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@LIMITS_FILES
def test_a_full_disk_leaves_no_picture_half_written(clean, tiny_model, tmp_path):
    ran = run_process("enhance", clean, "-o", tmp_path / "out", "--model", tiny_model, preexec_fn=allow_4_kb)
    assert ran.returncode == 2
    assert ran.stderr.count("failed: ") == 3
    assert "is the disk full?" in ran.stderr
    assert list((tmp_path / "out").iterdir()) == []


@LIMITS_FILES
def test_a_full_disk_leaves_no_report_half_written(clean, tmp_path):
    out = tmp_path / "out"
    ran = run_process("evaluate", "--lq", clean, "--gt", clean, "--model", "none", "-o", out, preexec_fn=allow_4_kb)
    assert ran.returncode == 2
    assert ran.stderr == f"error: {out / 'report.html'}: File too large; make room and run the command again\n"
    assert [path.name for path in out.glob("*.html")] == []
    assert [path.name for path in out.glob(".*")] == []


# ---------------------------------------------------------------- evaluate, train, export, weights


def test_evaluate_two_folders(sqe, clean, tmp_path, draw_image):
    for seed in range(3):
        write_png(tmp_path / "lq" / f"{seed}.png", draw_image((72, 96 + seed), seed) // 16 * 16)
    ran = sqe("evaluate", "--lq", tmp_path / "lq", "--gt", clean, "--model", "none", "-o", tmp_path / "evaluation")
    assert ran.code == 0, ran
    for name in ("images.csv", "summary.json", "report.html"):
        assert (tmp_path / "evaluation" / name).stat().st_size > 0
    assert ran.out.startswith("Compressed, means")
    headings, _, means = ran.out.splitlines()[1:4]
    assert headings.split() == ["pairs", "pictures", "bpp", "PSNR", "dB", "LPIPS", "blockiness", "s", "per", "MP"]
    [group] = json.loads((tmp_path / "evaluation" / "summary.json").read_text())["groups"]
    assert means.split()[:2] == ["lq", "3"]
    assert means.split()[3:5] == [f"{group['before']['psnr_db']:.2f}", f"{group['before']['lpips']:.4f}"]
    assert ran.out.endswith(f"report: {tmp_path / 'evaluation' / 'report.html'}\n")


@pytest.mark.parametrize("words", [[], ["--lq", "a"], ["store", "--lq", "a", "--gt", "b"]])
def test_evaluate_needs_one_kind_of_pairs(sqe, words):
    assert "--lq DIR --gt DIR" in sqe("evaluate", *words).error


def test_evaluate_names_a_store_that_is_not_there(sqe, tmp_path):
    assert "none.lmdb" in sqe("evaluate", tmp_path / "none.lmdb", "--model", "none").error


RECIPE = """
name: tiny
seed: 3
net_g: {kind: unet, hparams: {num_feat: [4, 8], num_block: [1, 1]}}
data: {pairs: [PAIRS], patch_px: 32, workers: 0}
valid: {pairs: [PAIRS], every: 2, max_pictures: 1}
psnr: {steps: 2, batch: 2}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe that trains in seconds, on a store that need not be there."""
    path = tmp_path / "tiny.yaml"
    path.write_text(textwrap.dedent(RECIPE).replace("PAIRS", str(tmp_path / "pairs.lmdb")))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("psnr.lerning_rate=1", "psnr.lerning_rate"),
        ("psnr.stesp=1", 'did you mean "psnr.steps"'),
        ("psnr.steps=-1", "psnr.steps"),
        ("net_g.kind=unett", "unett"),
        ("nonsense", "key=value"),
        ("seed=4", "sqe prepare"),  # nothing wrong but that the store is missing
    ],
)
def test_train_refuses_a_recipe_that_cannot_run(sqe, recipe, tmp_path, change, said):
    ran = sqe("train", recipe, "--set", change, "--run-dir", tmp_path / "run")
    assert said in ran.error
    assert not (tmp_path / "run").exists()


def test_train_names_a_missing_recipe(sqe, tmp_path):
    assert "none.yaml" in sqe("train", tmp_path / "none.yaml").error


def test_train_without_the_weights_of_its_loss_says_how_to_get_them(sqe, clean, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path / "no-weights"))
    sqe("prepare", clean, "-o", tmp_path / "pairs.lmdb", "--level", 37, "--jobs", 1)
    gan = "gan={steps: 1, batch: 2, loss: {percep: 1, percep_kind: vgg19}}"
    ran = sqe("train", recipe, "--set", gan, "--run-dir", tmp_path / "run")
    assert "sqe weights fetch vgg19" in ran.error
    assert not (tmp_path / "run").exists()


def test_what_needs_torch_says_how_to_get_it(sqe, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "subjectiveqe.training.loop", raising=False)
    assert sqe("train", recipe).error.endswith('run: pip install "subjectiveqe[train]"')


def test_weights_are_listed_with_how_to_get_them(sqe, tmp_path, monkeypatch):
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    ran = sqe("weights", "list")
    assert ran.code == 0
    for name in ("lpips-alex", "vgg16", "lpips-vgg", "dists", "vgg19"):
        assert f"{name}: " in ran.out
    assert "not here" in ran.out


def test_weights_of_an_unknown_name_or_file(sqe, tmp_path):
    assert "vgg19" in sqe("weights", "fetch", "vgg20").error
    (tmp_path / "some.bin").write_bytes(b"1234")
    assert "some.bin" in sqe("weights", "import", tmp_path / "some.bin").error


def test_the_whole_way_from_clean_pictures_to_better_ones(sqe, clean, recipe, tmp_path):
    store, run, model = tmp_path / "pairs.lmdb", tmp_path / "run", tmp_path / "model.onnx"
    assert sqe("prepare", clean, "-o", store, "--level", 37, "--jobs", 1).code == 0
    # In a process of its own, which keeps its logging to itself.
    trained = run_process("train", recipe, "--set", "psnr.lr=0.001", "--run-dir", run)
    assert trained.returncode == 0, trained.stderr
    weights = run / "psnr" / "best.safetensors"
    assert trained.stdout == f"weights: {weights}\n"
    assert sqe("export", weights, "-o", model).code == 0
    assert sqe("enhance", clean, "-o", tmp_path / "out", "--model", model).code == 0
    assert sqe("evaluate", store, "--model", model, "-o", tmp_path / "evaluation", "--save-images").code == 0
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["groups"][0]["num_pictures"] == 3
    assert len(list((tmp_path / "evaluation" / "images").rglob("*.png"))) == 3
    assert "add --resume" in sqe("train", recipe, "--run-dir", run).error
