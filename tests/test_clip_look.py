"""How coarse a clip is taken to be: by its frames, and by what its file says of them."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import av
import numpy as np
import pytest

from subjectiveqe.codecs import bitstream, clip_header
from subjectiveqe.codecs.bitstream import SliceQps, headers_logged
from subjectiveqe.codecs.clip_header import clip_coarseness
from subjectiveqe.codecs.coarseness import FAMILIES, coarseness
from subjectiveqe.enhancing import clip_look, video
from subjectiveqe.enhancing.clip import open_video, picture_stream, span_s
from subjectiveqe.enhancing.clip_look import ClipLook, look_at_clip
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.look import Look
from subjectiveqe.enhancing.video import enhance_video
from subjectiveqe.enhancing.video_files import Coding
from subjectiveqe.images import read_rgb
from subjectiveqe.samples import samples

NUM, PLACE = len(FAMILIES), FAMILIES.index("hevc-420")
QUIET = {"x265-params": "log-level=error"}


def make_clip(path, codec="libx264", count=24, pix_fmt="yuv420p", rate=10, **options):
    """A photo that moves by a pixel a frame, 10 of which are a second."""
    photo = read_rgb(samples()[0])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt = 128, 192, pix_fmt
        context.thread_count = 1  # by the number of threads an encoder spreads its bits otherwise
        context.options = QUIET | {name.replace("_", "-"): str(value) for name, value in options.items()}
        for k in range(count):
            picture = np.ascontiguousarray(photo[k : k + 128, 60 : 60 + 192])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


def said_by(path, num=NUM):
    with open_video(path) as container:
        places_s = np.linspace(*span_s(container), 8, endpoint=False)
        return clip_coarseness(container, picture_stream(container), places_s, num)


def mean_said(path):
    return np.mean([told for _, told in said_by(path)], axis=0)


def looks_like(value, family="avif", assume=None):
    """An enhancer to which all pictures look alike."""
    told = np.array([value * (name == family) for name in FAMILIES], np.float32)
    return SimpleNamespace(look=lambda _: Look(told), assume=assume)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
@pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": 0}), ("libx265", {})])
def test_a_clip_tells_its_qp(tmp_path, codec, options, suffix):
    """Key frames are three finer than the others, and B-frames of x265 one coarser."""
    options = {"x265-params": "log-level=error:qp=30:bframes=0"} if codec == "libx265" else {"qp": 30, **options}
    told = mean_said(make_clip(tmp_path / f"clip{suffix}", codec, **options))
    assert told == pytest.approx(coarseness("hevc", 30 - 8, chroma="420"), abs=0.01)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_are_predicted_from_none_are_as_coarse_as_they_say(tmp_path, codec):
    options = {"x265-params": "log-level=error:qp=30:keyint=1:ipratio=1"} if codec == "libx265" else {"qp": 30, "g": 1}
    told = mean_said(make_clip(tmp_path / "clip.mkv", codec, **options))
    assert told[PLACE] == pytest.approx(coarseness("hevc", 30)[0], abs=3.1 / 48)  # x264 takes three less for them
    assert told[PLACE] > coarseness("hevc", 26)[0]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_coarser_clips_say_so(tmp_path, codec, monkeypatch):
    """Run by root, SVT-AV1 puts the thread that calls it before all others of the machine: one that ends with it."""
    monkeypatch.setenv("SVT_LOG", "0")
    with ThreadPoolExecutor(1) as encoder:
        paths = [encoder.submit(make_clip, tmp_path / f"{crf}.mkv", codec, crf=crf).result() for crf in (20, 32, 44)]
    values = [mean_said(path)[PLACE] for path in paths]
    assert not hasattr(os, "SCHED_OTHER") or os.sched_getscheduler(0) == os.SCHED_OTHER
    assert values == sorted(values)
    assert values[2] - values[0] > 0.2
    assert values[0] < 0.45
    assert 0.4 < values[2] < 0.9


def test_whole_chroma_is_another_family(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", pix_fmt="yuv444p", qp=30, bf=0)
    assert mean_said(path) == pytest.approx(coarseness("hevc", 22), abs=0.01)
    path = make_clip(tmp_path / "halved.mkv", qp=30, bf=0)
    assert np.mean([told for _, told in said_by(path, 2)], axis=0) == pytest.approx(coarseness("hevc", 22, 2), abs=0.01)


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("mpeg4", "yuv420p"),
        ("mpeg2video", "yuv420p"),
        ("libvpx", "yuv420p"),
        ("mjpeg", "yuvj420p"),
        ("ffv1", "yuv420p"),
    ],
)
def test_other_codecs_say_nothing(tmp_path, codec, pix_fmt, monkeypatch):
    monkeypatch.setattr(bitstream.Headers, "of_packet", lambda *_: pytest.fail("is read all the same"))
    monkeypatch.setattr(clip_look, "_SAMPLES", 1)
    path = make_clip(tmp_path / "clip.mkv", codec, pix_fmt=pix_fmt, rate=25 if codec == "mpeg2video" else 10)
    assert said_by(path) == []


def test_no_more_is_read_than_it_takes(tmp_path, monkeypatch):
    """Of a clip with one key frame, at places that lie far behind it."""
    monkeypatch.setattr(clip_header, "_MOST_PASSED", 30)
    path, read = make_clip(tmp_path / "clip.mkv", count=120, g=500, qp=30, bf=0), []
    of_packet = bitstream.Headers.of_packet
    monkeypatch.setattr(bitstream.Headers, "of_packet", lambda *a: read.append(1) or of_packet(*a))
    assert said_by(path)
    assert len(read) <= 8 * 30


def test_a_clip_is_asked_all_over(tmp_path, monkeypatch):
    """One that is coarse in its second half."""
    monkeypatch.setattr(clip_header, "_PACKETS", 3)
    path = make_clip(tmp_path / "clip.mkv", count=80, g=10, x264_params="zones=0,39,q=20/40,79,q=40")
    said = said_by(path)
    times_s, values = [time_s for time_s, _ in said], [told[PLACE] for _, told in said]
    assert len(said) == 8
    assert times_s == sorted(times_s)
    assert times_s[0] < 1
    assert times_s[-1] > 6.9
    assert max(values[:4]) < 0.25  # x264 looks ahead, and takes some frames to get there
    assert min(values[6:]) > 0.5


def test_damage_does_not_silence_the_rest(tmp_path, caplog):
    path = make_clip(tmp_path / "clip.ts", count=60, g=10, qp=30, bf=0)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 8, len(data), 60):
        data[place] ^= 0xFF
    path.write_bytes(data)
    assert mean_said(path)[PLACE] == pytest.approx(coarseness("hevc", 22)[0], abs=0.06)
    assert not caplog.records  # FFmpeg's complaints are no user's


def late(path, start_s, suffix=".mkv", can_seek=True):
    """The same clip, beginning later."""
    other = path.with_name(f"late{suffix}")
    with (
        av.open(str(path)) as given,
        other.open("wb") as file,
        av.open(
            file if can_seek else OnlyForward(file), "w", format={".mkv": "matroska"}.get(suffix, suffix[1:])
        ) as out,
    ):
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                shift = int(start_s / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                out.mux(packet)
    return other


class OnlyForward:
    """A file as a pipe is one."""

    def __init__(self, file):
        self.write = file.write


@pytest.mark.parametrize(
    ("start_s", "suffix", "can_seek"),
    [(3600, ".mkv", True), (3600, ".mp4", True), (50, ".mpegts", True), (0, ".mkv", False)],
)
def test_clips_that_begin_late_or_do_not_say_their_length_are_asked_all_over(tmp_path, start_s, suffix, can_seek):
    path = make_clip(tmp_path / "clip.mkv", count=80, g=10, bf=0, x264_params="zones=0,39,q=20/40,79,q=40")
    path = late(path, start_s, suffix, can_seek)
    with open_video(path) as container:
        assert bool(container.duration) == can_seek
        assert span_s(container) == pytest.approx((start_s, start_s + 7.9), abs=1.6)  # MPEG-TS adds 1.4
    values = [told[PLACE] for _, told in said_by(path)]
    assert len(values) == 8
    assert values[0] + 0.3 < values[-1]
    seen = []

    def look(picture):
        seen.append(picture.tobytes())
        return Look(None)

    look_at_clip(path, SimpleNamespace(look=look, assume=None))
    assert len(set(seen)) > 4


def test_parts_of_a_clip_may_have_parameters_of_their_own(tmp_path):
    """Two pieces of MPEG-TS in one file; what QPs are counted from stands in the second one's beginning alone."""
    fine, coarse = (make_clip(tmp_path / f"{qp}.ts", count=40, qp=qp, bf=0, g=100) for qp in (15, 40))
    joined = tmp_path / "clip.ts"
    joined.write_bytes(fine.read_bytes() + coarse.read_bytes())
    assert max(told[PLACE] for _, told in said_by(joined)) == pytest.approx(coarseness("hevc", 32)[0], abs=0.02)


def test_a_slice_names_what_its_qp_is_counted_from():
    first = [
        ("pic_parameter_set_id", 0),
        ("pic_init_qp_minus26", 9),
        ("pic_parameter_set_id", 5),
        ("pic_init_qp_minus26", -25),
    ]
    qps = SliceQps(first)
    assert qps.read([("pic_parameter_set_id", 0), ("slice_qp_delta", -2)]) == [33]
    assert qps.read([("pic_parameter_set_id", 5), ("slice_qp_delta", 20)]) == [21]
    assert qps.read([("pic_parameter_set_id", 3), ("slice_qp_delta", 1)]) == []  # of which nothing is known
    assert qps.read(
        [
            ("pps_pic_parameter_set_id", 3),
            ("init_qp_minus26", 4),
            ("slice_pic_parameter_set_id", 3),
            ("slice_qp_delta", 1),
        ]
    ) == [31]


@pytest.mark.parametrize("kind", ["telemetry", "filler"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_what_is_no_picture_is_not_read(tmp_path, codec, kind, monkeypatch):
    """100 kB a frame, of which each byte would be a line."""
    options = {"x265_params": "log-level=error:repeat-headers=1"} if codec == "libx265" else {}
    path = make_clip(tmp_path / "clip.ts", codec, count=12, **options)
    payload = b"\x05" + b"\xff" * 392 + b"\x28" + bytes(range(1, 251)) * 400 + b"\x80"
    unit = (b"\x4e\x01" if codec == "libx265" else b"\x06") + payload
    if kind == "filler":
        unit = (b"\x4c\x01" if codec == "libx265" else b"\x0c") + b"\xff" * 100_000 + b"\x80"
    with av.open(str(path)) as given, av.open(str(tmp_path / "out.ts"), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                larger = av.Packet(b"\0\0\0\1" + unit + bytes(packet))
                larger.pts, larger.dts, larger.time_base = packet.pts, packet.dts, packet.time_base
                larger.is_keyframe, larger.stream = packet.is_keyframe, stream
                out.mux(larger)
    lines = []
    monkeypatch.setattr(bitstream, "_fields", lambda found: lines.extend(found) or [])
    said_by(tmp_path / "out.ts")
    assert 12 < len(lines) < 100_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is not here")
def test_a_forked_process_reads_headers_whatever_its_parents_threads_did(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", qp=30, bf=0)
    with headers_logged():  # as another thread would
        process = multiprocessing.get_context("fork").Process(target=said_by, args=(path,), daemon=True)
        process.start()
    process.join(60)
    assert process.exitcode == 0


def test_the_level_of_ffmpegs_log_stays(tmp_path):
    level = av.logging.get_level()
    said_by(make_clip(tmp_path / "clip.mkv"))
    said_by(make_clip(tmp_path / "other.mkv", "mpeg4"))
    assert av.logging.get_level() == level


def test_the_file_is_believed_unless_the_clip_looks_coarser_by_far(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", qp=30, bf=0)
    said = coarseness("hevc", 22)[0]
    for value in (0.01, said, said + 0.2):
        told = look_at_clip(path, looks_like(value)).coarseness
        assert told[:, PLACE] == pytest.approx(said, abs=0.01)
        assert not told[:, :PLACE].any()
    for value in (said + 0.3, 1.0):  # it is taken for what it looks like, and not for much coarser than it says
        told = look_at_clip(path, looks_like(value)).coarseness
        assert told.shape == (1, len(FAMILIES))
        assert told[0] == pytest.approx([(said + 0.25) * (name == "avif") for name in FAMILIES], abs=0.01)


def test_a_film_of_few_colours_stays_one_whatever_its_file_says(tmp_path):
    assert not look_at_clip(make_clip(tmp_path / "clip.mkv", qp=30), looks_like(0.0)).coarseness.any()


def test_what_is_assumed_counts_more_than_the_file(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", qp=30)
    assert look_at_clip(path, looks_like(0.7, "webp", assume="webp:20")).coarseness.max() == pytest.approx(0.7)


def test_a_network_that_is_told_nothing_is_told_nothing(tmp_path):
    enhancer = SimpleNamespace(look=lambda _: Look(None), assume=None)
    look = look_at_clip(make_clip(tmp_path / "clip.mkv"), enhancer)
    assert look.coarseness is None
    assert look.at(0.5) is None


def test_between_places_coarseness_is_between():
    look = ClipLook((1.0, 3.0), np.array([[0.2, 0.0], [0.6, 0.1]], np.float32))
    found = [look.at(time_s).tolist() for time_s in (0, 1, 2, 3, 9)]
    assert np.allclose(found, [[0.2, 0], [0.2, 0], [0.4, 0.05], [0.6, 0.1], [0.6, 0.1]])
    again = ClipLook.from_json(look.to_json())
    assert again.times_s == look.times_s
    assert (again.coarseness == look.coarseness).all()


def test_frames_are_looked_at_all_over_the_clip(tmp_path):
    source = make_clip(tmp_path / "clip.mkv", count=60, g=4)
    seen = []

    def look(picture):
        seen.append(picture.tobytes())
        return Look(np.array([0.5], np.float32))

    found = look_at_clip(source, SimpleNamespace(look=look, assume="hevc:30"))
    assert found.coarseness.tolist() == [[0.5]]
    assert len(seen) == 8
    assert len(set(seen)) > 4
    with av.open(str(source)) as container:
        frames = [(clip_look.to_rgb(frame).tobytes(), frame.key_frame) for frame in container.decode(video=0)]
    assert not {rgb for rgb, is_key in frames if is_key} & set(seen)


def test_frames_are_enhanced_by_what_the_file_says_of_their_time(tmp_path):
    enhancer = Enhancer("fast", "onnxruntime")
    source = make_clip(
        tmp_path / "clip.mkv", count=60, pix_fmt="yuv444p", g=10, x264_params="zones=0,29,q=20/30,59,q=44"
    )
    asked = []

    class Seen:
        assume, identity = None, enhancer.identity
        look, taken_for = staticmethod(enhancer.look), staticmethod(enhancer.taken_for)

        def with_look(self, image, look):
            asked.append(look.coarseness)
            return image

    result = enhance_video(source, tmp_path / "better.mkv", Seen(), Coding("ffv1"))
    place = FAMILIES.index("hevc")
    assert result.taken_for in {f"hevc:{qp}" for qp in range(12, 26)}
    assert len(asked) == 60
    assert asked[0][place] + 0.3 < asked[-1][place]
    assert np.abs(np.diff([told[place] for told in asked])).max() < 0.1  # it does not jump


def test_a_run_that_goes_on_is_told_what_the_first_was(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    enhancer = Enhancer("fast", "onnxruntime")
    source = make_clip(tmp_path / "clip.mkv", count=12)

    def stop(done, _):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1"), progress=stop)
    with monkeypatch.context() as patch:
        patch.setattr(video, "look_at_clip", lambda *_: pytest.fail("looked again"))
        assert enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1")).resumed == 6
