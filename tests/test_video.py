"""Videos: what goes in comes out, frame for frame, with better frames."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise, zip_longest
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import onnx
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from typer.testing import CliRunner

from subjectiveqe.cli import app
from subjectiveqe.enhancing import clock as clock_module
from subjectiveqe.enhancing import video
from subjectiveqe.enhancing.clip import Turn, colour_tags, timed, to_rgb
from subjectiveqe.enhancing.clock import _common, _jumps, clock_of
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.enhancing.files import BatchProgress, enhance_files
from subjectiveqe.enhancing.joining import _in_order
from subjectiveqe.enhancing.look import Look
from subjectiveqe.enhancing.steady import Steadier
from subjectiveqe.enhancing.video import enhance_video
from subjectiveqe.enhancing.video_files import Coding
from subjectiveqe.errors import ConfigError, ImageError
from subjectiveqe.images import read_rgb, write_png
from subjectiveqe.samples import samples

TICK = Fraction(1, 90000)


def uneven(count):
    """Timestamps of a variable rate."""
    return [3000 * k + 700 * (k % 3) for k in range(count)]


def make_clip(path, count=20, size=(64, 96), pix_fmt="yuv420p", times=None, sounds=0, codec="libx264", **tags):
    """A photo that moves by a pixel a frame, coded with B-frames."""
    photo = read_rgb(samples()[0])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        context = stream.codec_context
        context.height, context.width, context.pix_fmt, context.time_base = *size, pix_fmt, TICK
        context.options = {"crf": "38", "x265-params": "log-level=error"} if "26" in codec else {}
        for name, value in tags.items():
            setattr(context, name, value)
        audio = [container.add_stream("aac", rate=48000, layout="mono") for _ in range(sounds)]
        for language, track in zip(("deu", "fra"), audio, strict=False):
            track.metadata["language"] = language
        for k, pts in enumerate(times or [3000 * k for k in range(count)]):
            picture = np.ascontiguousarray(photo[k : k + size[0], 100 : 100 + size[1]])
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format=pix_fmt, dst_colorspace=tags.get("colorspace"), dst_color_range=tags.get("color_range")
            )
            frame.pts, frame.time_base = pts, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for track in audio:
            for k in range(count):
                wave = np.sin(np.arange(1024, dtype=np.float32)[None] / 20)
                frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, k * 1024, Fraction(1, 48000)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def frames_of(path):
    with av.open(str(path)) as container:
        return [*container.decode(video=0)]


def times_of(path):
    return [round(float(frame.pts * frame.time_base), 5) for frame in frames_of(path)]


def packets_of(path, kind):
    """The bytes of all packets, stream by stream."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        found = {stream.index: [] for stream in streams}
        for packet in container.demux(streams) if streams else ():
            if packet.size:
                found[packet.stream.index].append(bytes(packet))
        return [*found.values()]


def difference(path, other):
    pairs = zip(frames_of(path), frames_of(other), strict=True)
    return np.mean([np.abs(a.to_ndarray(format="rgb24").astype(int) - b.to_ndarray(format="rgb24")) for a, b in pairs])


def stopped_at(number):
    def stop(done, _):
        if done == number:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_times_sound_and_pictures_come_along(tmp_path, enhancer, suffix, codec):
    source = make_clip(tmp_path / f"clip{suffix}", times=uneven(20), sounds=2)
    target = tmp_path / f"better{suffix}"
    result = enhance_video(source, target, enhancer, Coding(codec, 10))
    assert (result.frames, result.resumed, result.warnings) == (20, 0, ())
    assert times_of(target) == times_of(source)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert 0.2 < difference(source, target) < 8
    with av.open(str(source)) as given, av.open(str(target)) as container:
        languages = [[s.metadata.get("language") for s in c.streams.audio] for c in (given, container)]
        assert languages[0] == languages[1]
        assert "fra" in languages[0]
        assert container.streams.video[0].codec_context.name == {"x264": "h264", "x265": "hevc"}[codec]
    if codec == "x265" and suffix != ".mkv":
        assert b"hvc1" in target.read_bytes()
        assert b"hev1" not in target.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((source.name, target.name))


def test_frames_are_those_of_the_enhancer(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mkv", pix_fmt="yuv444p", count=3)
    enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1"))
    for before, after in zip(frames_of(source), frames_of(tmp_path / "better.mkv"), strict=True):
        expected = enhancer(before.to_ndarray(format="rgb24")).astype(int)
        off = np.abs(after.to_ndarray(format="rgb24") - expected)
        assert off.mean() < 1  # two ways between RGB and YCbCr
        assert np.percentile(off, 99) <= 3


def test_frames_without_colour_get_none(tmp_path):
    """A film in black and white that begins with a title in colour."""
    enhancer = Enhancer("fast", "onnxruntime")
    source = make_clip(tmp_path / "a.mkv", count=4, codec="ffv1", pix_fmt="bgr0")
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames[2:] = [np.repeat(frame[..., 1:2], 3, axis=2) for frame in frames[2:]]
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", 24, width=96, height=64, pix_fmt="bgr0")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    enhance_video(source, tmp_path / "out.mkv", enhancer, Coding("ffv1"))
    with av.open(str(tmp_path / "out.mkv")) as container:
        spread = [np.ptp(frame.to_ndarray(format="rgb24"), axis=2).max() for frame in container.decode(video=0)]
    assert min(spread[:2]) > 10
    assert max(spread[2:]) <= 2  # as YUV leaves it


def test_frames_do_not_pile_up_until_python_looks_for_cycles(tmp_path, monkeypatch):
    """With an enhancer that makes no tuples, which another thread is not to see before they are made."""
    monkeypatch.setattr(video, "is_gray", lambda _: False)
    enhancer = SimpleNamespace(
        identity={"model": "none"},
        assume=None,
        look=lambda _: Look(None),
        with_look=lambda image, _: image,
        taken_for=lambda _: None,
    )
    source, alive = make_clip(tmp_path / "a.mp4", 60, size=(16, 32)), []

    def count(*_):
        alive.append(sum(type(thing) is av.VideoFrame for thing in gc.get_objects()))

    gc.collect()
    gc.freeze()  # what is there already is not counted, which would take long
    gc.disable()
    try:
        enhance_video(source, tmp_path / "b.mp4", enhancer, Coding("x264"), progress=count)
    finally:
        gc.enable()
        gc.unfreeze()
    assert len(alive) >= 60
    assert max(alive) < 45


def test_a_crf_of_0_is_lossless(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mkv", count=2)
    for name, coding in (("exact", Coding("ffv1")), ("zero", Coding("x264", 0)), ("usual", Coding("x264"))):
        enhance_video(source, tmp_path / f"{name}.mkv", enhancer, coding)
    assert difference(tmp_path / "exact.mkv", tmp_path / "zero.mkv") == 0
    assert difference(tmp_path / "exact.mkv", tmp_path / "usual.mkv") > 0


@pytest.mark.parametrize(("matrix", "span"), [(1, 1), (5, 1), (9, 1), (1, 2)])
def test_lossless_videos_are_tagged_too(tmp_path, enhancer, matrix, span):
    tags = {"colorspace": matrix, "color_range": span, "color_primaries": 1, "color_trc": 1}
    source = make_clip(tmp_path / "clip.mp4", count=1, **tags)
    enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1"))
    frame = next(iter(frames_of(tmp_path / "better.mkv")))
    assert {name: getattr(frame, name) for name in tags} == tags


@pytest.mark.parametrize(("matrix", "span"), [(1, 1), (5, 1), (9, 1), (1, 2), (2, 1)])
def test_colours_stay_whatever_the_matrix_and_the_range(tmp_path, enhancer, matrix, span):
    tags = {"colorspace": matrix, "color_range": span, "color_primaries": 1, "color_trc": 1}
    source = make_clip(tmp_path / "clip.mp4", count=4, **(tags if matrix != 2 else {}))
    target = tmp_path / "better.mp4"
    enhance_video(source, target, enhancer, Coding("x264", 5))
    for before, after in zip(frames_of(source), frames_of(target), strict=True):
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            assert getattr(after, name) == getattr(before, name), name
        planes = [np.array([np.asarray(plane).mean() for plane in frame.planes]) for frame in (before, after)]
        assert np.abs(planes[0] - planes[1]).max() < 0.6


@pytest.mark.parametrize(("name", "told", "span"), [("yuvj420p", 0, 2), ("yuv420p", 0, 1), ("yuv420p", 2, 2)])
def test_old_names_of_formats_say_full_range(name, told, span):
    form = SimpleNamespace(name=name)
    frame = SimpleNamespace(color_primaries=1, color_trc=1, colorspace=0, color_range=told, format=form)
    assert colour_tags(frame) == {"color_primaries": 1, "color_trc": 1, "colorspace": 5, "color_range": span}


def remuxed(source, path, filter_by=None, title=None, **tags):
    """The pictures of a clip in another container, their packets filtered, with colours that this alone says."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        picture = given.streams.video[0]
        copied = out.add_stream_from_template(picture)
        if title:
            copied.metadata["title"] = title
        change = BitStreamFilterContext(filter_by, picture, copied) if filter_by else None
        for name, value in tags.items():
            setattr(copied.codec_context, name, value)
        for packet in given.demux(picture):
            for changed in change.filter(packet if packet.size else None) if change else [packet]:
                if changed.size:
                    changed.stream = copied
                    out.mux(changed)
    return path


COLOURS = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_that_the_container_alone_says_are_kept(tmp_path, enhancer, suffix):
    """As those of HDR in HEVC, whose decoder puts nothing in their place."""
    plain = make_clip(tmp_path / "plain.mkv", count=4, codec="libx265", pix_fmt="yuv420p10le", colorspace=9)
    said = "hevc_metadata=colour_primaries=2:transfer_characteristics=2:matrix_coefficients=2"
    source, target = remuxed(plain, tmp_path / f"clip{suffix}", said, **COLOURS), tmp_path / f"better{suffix}"
    assert {int(frame.color_trc) for frame in frames_of(source)} == {2}
    enhance_video(source, target, enhancer, Coding("x265", 5))
    for before, after in zip(frames_of(source), frames_of(target), strict=True):
        assert {name: int(getattr(after, name)) for name in COLOURS} == COLOURS
        planes = [np.array([np.asarray(plane).mean() for plane in frame.planes]) for frame in (before, after)]
        assert np.abs(planes[0] - planes[1]).max() < 0.6


def seen_difference(shown, target):
    pairs = zip(shown, frames_of(target), strict=True)
    return np.mean([np.abs(a.astype(int) - b.to_ndarray(format="rgb24")).mean() for a, b in pairs])


@pytest.mark.parametrize("left", [6, 7])
def test_what_a_container_hides_stays_hidden(tmp_path, enhancer, left):
    """MP4's clean aperture, in pixels about the middle, here by hand, as nothing writes it; Matroska's by FFmpeg."""
    source = make_clip(tmp_path / "clip.mp4", count=4)
    content, boxes, start = source.read_bytes(), [], 0
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = content.index(name, start)
        boxes.append(start - 4)
    end = boxes[-1] + int.from_bytes(content[boxes[-1] : boxes[-1] + 4])
    width, height = 100 - 2 * left, 56
    aperture = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, 2, 1, 2, 1)
    assert content.index(b"mdat") < boxes[0]  # or places of packets would have moved
    changed = bytearray(content[:end] + aperture + content[end:])
    for place in boxes:
        changed[place : place + 4] = (int.from_bytes(content[place : place + 4]) + 40).to_bytes(4)
    shown = [frame.to_ndarray(format="rgb24")[6:62, left : left + width] for frame in frames_of(source)]
    source.write_bytes(changed)
    for given in (source, remuxed(source, tmp_path / "clip.mkv")):
        target = tmp_path / f"better{given.suffix}"
        assert enhance_video(given, target, enhancer, Coding("x264", 5)).warnings == ()
        assert {(frame.width, frame.height) for frame in frames_of(target)} == {(width, height)}
        assert seen_difference(shown, target) < 0.9


def test_what_a_stream_hides_stays_hidden(tmp_path, enhancer):
    plain = make_clip(tmp_path / "plain.ts", count=4)
    source = remuxed(plain, tmp_path / "clip.ts", "h264_metadata=crop_left=6:crop_top=4:crop_right=10:crop_bottom=2")
    enhance_video(source, tmp_path / "better.mp4", enhancer, Coding("x264", 5))
    shown = [frame.to_ndarray(format="rgb24")[4:62, 6:86] for frame in frames_of(plain)]
    assert {(frame.width, frame.height) for frame in frames_of(tmp_path / "better.mp4")} == {(80, 58)}
    assert seen_difference(shown, tmp_path / "better.mp4") < 0.9


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_titles_of_tracks_are_kept(tmp_path, enhancer, suffix):
    source = remuxed(make_clip(tmp_path / "plain.mp4", count=2), tmp_path / "clip.mp4", title="Camera 1")
    enhance_video(source, tmp_path / f"better{suffix}", enhancer)
    with av.open(str(tmp_path / f"better{suffix}")) as container:
        tags = container.streams.video[0].metadata
    assert tags["title" if suffix == ".mkv" else "name"] == "Camera 1"
    assert "NAME" not in tags


def test_what_was_measured_of_the_old_pictures_is_not_said_of_the_new(tmp_path, enhancer):
    with (
        av.open(str(make_clip(tmp_path / "plain.mkv", count=2))) as given,
        av.open(str(tmp_path / "clip.mkv"), "w") as out,
    ):
        copied = out.add_stream_from_template(given.streams.video[0])
        copied.metadata.update(
            {
                "BPS": "1234",
                "NUMBER_OF_BYTES": "99",
                "_STATISTICS_TAGS": "BPS",
                "DURATION-eng": "00:09:59.000000000",
                "artist": "me",
            }
        )
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    enhance_video(tmp_path / "clip.mkv", tmp_path / "better.mkv", enhancer)
    with av.open(str(tmp_path / "better.mkv")) as container:
        keys = {key.lower() for key in container.streams.video[0].metadata}
    assert "artist" in keys
    assert not keys & {"bps", "number_of_bytes", "_statistics_tags", "duration-eng"}


def test_rgb_is_tagged_as_the_yuv_it_becomes(tmp_path, enhancer):
    source = make_clip(tmp_path / "screen.mkv", count=2, codec="libx264rgb", pix_fmt="rgb24")
    enhance_video(source, tmp_path / "new" / "better.mkv", enhancer, Coding("ffv1"))
    for before, after in zip(frames_of(source), frames_of(tmp_path / "new" / "better.mkv"), strict=True):
        assert (before.colorspace, after.colorspace) == (0, 5)
        means = [frame.to_ndarray(format="rgb24").mean(axis=(0, 1)) for frame in (before, after)]
        assert np.abs(means[0] - means[1]).max() < 1.5


@pytest.mark.parametrize("size", [(63, 96), (64, 95)])
def test_odd_sides_keep_every_pixel(tmp_path, enhancer, size):
    source = make_clip(tmp_path / "odd.webm", count=2, codec="libvpx-vp9", size=size)
    enhance_video(source, tmp_path / "better.mp4", enhancer)
    assert {(frame.height, frame.width) for frame in frames_of(tmp_path / "better.mp4")} == {size}


def test_damage_is_passed_over_and_told(tmp_path, enhancer):
    source = make_clip(tmp_path / "whole.mp4", count=90)
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat")
    middle = start + int.from_bytes(data[start - 4 : start], "big") // 2
    data[middle : middle + 100] = bytes(100)
    (tmp_path / "hole.mp4").write_bytes(data)
    found = enhance_video(tmp_path / "hole.mp4", tmp_path / "better.mp4", enhancer)
    assert 0 < found.frames <= 90
    assert len(frames_of(tmp_path / "better.mp4")) == found.frames

    source = make_clip(tmp_path / "whole.mkv", count=90)
    data = source.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    found = enhance_video(tmp_path / "cut.mkv", tmp_path / "short.mkv", enhancer)
    assert found.frames < 70
    assert "is the file cut?" in found.warnings[-1]


def test_a_hole_is_told(tmp_path, enhancer):
    source = make_clip(tmp_path / "whole.mkv", count=120, gop_size=15)
    data = bytearray(source.read_bytes())
    data[len(data) // 3 : len(data) * 2 // 3] = bytes(len(data) * 2 // 3 - len(data) // 3)
    (tmp_path / "hole.mkv").write_bytes(data)
    found = enhance_video(tmp_path / "hole.mkv", tmp_path / "better.mkv", enhancer)
    assert 0 < found.frames < 90
    assert "has no pictures from " in found.warnings[-1]


def test_slow_clips_are_whole(tmp_path, enhancer):
    source = make_clip(tmp_path / "slow.mp4", times=[270_000 * k for k in range(4)])
    assert enhance_video(source, tmp_path / "better.mp4", enhancer).warnings == ()


def test_ten_bits_and_chroma_stay(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mkv", pix_fmt="yuv422p10le", codec="libx265", count=6)
    enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1"))
    for before, after in zip(frames_of(source), frames_of(tmp_path / "better.mkv"), strict=True):
        assert after.format.name == "yuv422p10le"
        luma = [np.frombuffer(frame.planes[0], np.uint16).astype(int) for frame in (before, after)]
        assert len(np.unique(luma[1] % 4)) == 4  # not eight bits in disguise
        assert np.abs(luma[0] - luma[1]).mean() < 40


HDR = "log-level=error:max-cll=1000,400:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(9000,1)"


@pytest.mark.parametrize(
    ("clip", "warning"),
    [
        ({"options": {"x264-params": "interlaced=1"}}, "interlaced frames are enhanced as they are"),
        ({"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": HDR}}, "mastered on is not kept"),
        ({"codec": "ffv1", "pix_fmt": "yuva420p"}, "alpha is not kept"),
        ({"codec": "ffv1", "pix_fmt": "yuv420p12le"}, "12 bits become 10"),
        ({}, None),
    ],
)
def test_what_frames_lose_is_said(tmp_path, enhancer, clip, warning):
    source = make_clip(tmp_path / ("in.mkv" if clip.get("codec") == "ffv1" else "in.mp4"), 3, (64, 96), **clip)
    said = enhance_video(source, tmp_path / "out.mp4", enhancer).warnings
    assert len(said) == (warning is not None)
    assert warning is None or warning in said[0]


def test_a_turned_clip_lies_upright(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mp4", count=3)
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8
    upright = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    assert data[place : place + 36] == upright
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30], ">i4").tobytes()  # a quarter, clockwise
    data[place : place + 36] = turn
    source.write_bytes(data)
    enhance_video(source, tmp_path / "better.mp4", enhancer, Coding("x264", 5))
    before, after = (
        frames_of(path)[0].to_ndarray(format="rgb24").astype(int) for path in (source, tmp_path / "better.mp4")
    )
    assert after.shape == (96, 64, 3)
    assert np.abs(np.rot90(before, -1) - after).mean() < 8


def displayed(path, matrix):
    """Puts a matrix into the header of an MP4 file's picture, which says how it is to be seen."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8
    values = np.array(matrix, float) * [1 << 16, 1 << 16, 1 << 30]
    data[place : place + 36] = values.astype(">i4").tobytes()
    path.write_bytes(data)
    return path


TURNS = pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ([[-1, 0, 0], [0, 1, 0], [96, 0, 1]], lambda picture: picture[:, ::-1]),  # as a mirror
        ([[1, 0, 0], [0, -1, 0], [0, 64, 1]], lambda picture: picture[::-1]),
        ([[-1, 0, 0], [0, -1, 0], [96, 64, 1]], lambda picture: picture[::-1, ::-1]),
        ([[0, 1, 0], [-1, 0, 0], [64, 0, 1]], lambda picture: np.rot90(picture, -1)),
        ([[0, -1, 0], [1, 0, 0], [0, 96, 1]], np.rot90),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], lambda picture: picture.transpose(1, 0, 2)),
    ],
)


@TURNS
def test_a_clip_lies_as_its_matrix_says(tmp_path, enhancer, matrix, upright):
    source = displayed(make_clip(tmp_path / "clip.mp4", count=2), matrix)
    assert enhance_video(source, tmp_path / "better.mp4", enhancer, Coding("x264", 5)).warnings == ()
    before, after = (
        frames_of(path)[0].to_ndarray(format="rgb24").astype(int) for path in (source, tmp_path / "better.mp4")
    )
    assert after.shape == upright(before).shape
    assert np.abs(upright(before) - after).mean() < 8


class Untouched:
    """An enhancer that leaves everything as it is."""

    assume, identity = None, {}

    def look(self, _):
        return Look(None)

    def taken_for(self, _):
        return None

    def with_look(self, image, _):
        return image


def planes_of(path):
    return [
        np.frombuffer(plane, np.uint16 if "10" in frame.format.name else np.uint8).reshape(plane.height, -1)[
            :, : plane.width
        ]
        for frame in frames_of(path)
        for plane in frame.planes
    ]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
def test_what_is_left_alone_stays_to_the_bit(tmp_path, pix_fmt):
    """In colours that RGB does not have, too, where nothing has to be kept at rest."""
    source = tmp_path / "clip.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", 24, width=96, height=64, pix_fmt=pix_fmt)
        rng = np.random.default_rng(0)
        for _ in range(3):
            frame = av.VideoFrame(96, 64, pix_fmt)
            for plane in frame.planes:
                levels = np.frombuffer(plane, np.uint16 if "10" in pix_fmt else np.uint8)
                levels[...] = rng.integers(1024 if "10" in pix_fmt else 256, size=levels.shape)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    enhance_video(source, tmp_path / "better.mkv", Untouched(), Coding("ffv1"))
    for before, after in zip(planes_of(source), planes_of(tmp_path / "better.mkv"), strict=True):
        assert (before == after).all()


def test_colours_that_change_within_a_clip_are_those_of_its_beginning_then(tmp_path):
    """Two pieces of MPEG-TS in one file: what players make of the second one's levels stays."""
    parts = []
    for name, matrix, span in (("a", 1, 1), ("b", 5, 2)):
        times = [3000 * k + (90000 if name == "b" else 0) for k in range(4)]
        parts.append(make_clip(tmp_path / f"{name}.ts", 4, times=times, colorspace=matrix, color_range=span))
    source = tmp_path / "clip.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    enhance_video(source, tmp_path / "better.mkv", Untouched(), Coding("ffv1"))
    better = frames_of(tmp_path / "better.mkv")
    assert len(better) == 8
    for before, after in zip(frames_of(source), better, strict=True):
        assert np.abs(to_rgb(before).mean((0, 1)) - to_rgb(after).mean((0, 1))).max() < 1


def test_the_matrix_of_a_codec_that_has_but_one_is_kept(tmp_path):
    source = make_clip(tmp_path / "clip.webm", 2, codec="libvpx")
    enhance_video(source, tmp_path / "better.mkv", Untouched(), Coding("ffv1"))
    with av.open(str(source)) as given, av.open(str(tmp_path / "better.mkv")) as container:
        matrices = [next(file.decode(video=0)).colorspace for file in (given, container)]
    assert matrices == [5, 5]


def test_tags_in_letters_of_old_systems_come_along(tmp_path):
    source = tmp_path / "clip.avi"
    with av.open(str(source), "w") as container:
        container.metadata["title"] = "Mueller"
        stream = container.add_stream("mpeg4", 24, width=96, height=64, pix_fmt="yuv420p")
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    source.write_bytes(source.read_bytes().replace(b"Mueller", "München".encode("latin-1")))
    enhance_video(source, tmp_path / "better.mkv", Untouched())
    with av.open(str(tmp_path / "better.mkv")) as container:
        assert container.metadata["title"] == "München"


def test_a_packet_that_the_decoder_refuses_is_passed_over(tmp_path):
    """H.263's says that this is not permitted, others that the data are invalid."""
    source = tmp_path / "clip.3gp"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("h263", 10, width=128, height=96, pix_fmt="yuv420p")
        photo = read_rgb(samples()[0])
        for k in range(16):
            picture = np.ascontiguousarray(photo[k : k + 96, k : k + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    with av.open(str(source)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][8]
        place, size = packet.pos, packet.size
    data = bytearray(source.read_bytes())
    data[place : place + size] = bytes(size)
    source.write_bytes(data)
    result = enhance_video(source, tmp_path / "better.mp4", Untouched())
    assert result.frames == 15
    assert result.warnings == ("is damaged: 1 packets could not be decoded, their frames are missing",)


def test_a_stream_that_ffmpeg_does_not_know_is_named(tmp_path):
    """Tables beside the pictures of a broadcast: what it takes for sound here says that it is of ISO/IEC 13818-6."""
    source = make_clip(tmp_path / "clip.ts", 4, sounds=1)
    data = bytearray(source.read_bytes())
    for packet in range(0, len(data), 188):
        pid = (data[packet + 1] & 31) << 8 | data[packet + 2]
        if pid == 0x1000:
            first = packet + 5 + data[packet + 4]
            stop = first + 3 + ((data[first + 1] & 15) << 8 | data[first + 2]) - 4
            entry = first + 12 + ((data[first + 10] & 15) << 8 | data[first + 11])
            while entry < stop:
                if data[entry] == 0x0F:
                    data[entry] = 0x0B
                entry += 5 + ((data[entry + 3] & 15) << 8 | data[entry + 4])
            data[stop : stop + 4] = crc32_of_mpeg(data[first:stop]).to_bytes(4, "big")
        if pid == 0x101:  # a section, and no sound
            data[packet + 3] &= 0xDF
            data[packet + 4 : packet + 188] = b"\x00\x3b\xb0\x20" + bytes(range(180))
    source.write_bytes(data)
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams] == ["video", "unknown"]
    result = enhance_video(source, tmp_path / "better.mp4", Untouched())
    assert result.warnings == ("stream 1 (unknown) is not kept",)


def crc32_of_mpeg(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


@TURNS
def test_what_is_left_alone_of_a_turned_clip_stays_to_the_bit(tmp_path, matrix, upright):
    source = displayed(make_clip(tmp_path / "clip.mp4", count=1), matrix)
    enhance_video(source, tmp_path / "better.mkv", Untouched(), Coding("ffv1"))
    for before, after in zip(planes_of(source), planes_of(tmp_path / "better.mkv"), strict=True):
        assert (upright(before[..., None])[..., 0] == after).all()


def test_frames_of_an_avi_come_at_an_even_pace(tmp_path, enhancer):
    plain, source = make_clip(tmp_path / "plain.ts"), tmp_path / "clip.avi"
    with av.open(str(plain)) as given, av.open(str(source), "w") as out:
        picture = out.add_stream_from_template(given.streams.video[0])
        picture.time_base = Fraction(1, 30)
        for number, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            packet.pts, packet.dts, packet.time_base, packet.stream = None, number, Fraction(1, 30), picture
            out.mux(packet)
    enhance_video(source, tmp_path / "better.mp4", enhancer)
    paces = np.diff(times_of(tmp_path / "better.mp4"))
    assert len(paces) == 19
    assert np.abs(paces - 1 / 30).max() < 0.001


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 3000, 3000, 9000], [0, 3000, 6000, 9000]),
        ([5, 4, 3], [5, 3005, 6005]),
        ([None, None], [0, 3000]),
        ([None, 1000, None], [0, 1000, 4000]),
        ([0, 3000, 900000, 9000, 12000], [0, 3000, 6000, 9000, 12000]),  # one that is ahead
        ([0, 1000, 900000, 2000, 3000], [0, 1000, 1500, 2000, 3000]),
        ([0, 900000, 900000, 903000], [0, 900000, 903000, 906000]),  # after a long still
        ([0, 900000, 899900], [0, 896900, 899900]),
    ],
)
def test_timestamps_rise_whatever_the_file_says(times, expected):
    container = SimpleNamespace(format=SimpleNamespace(name="mpegts"))
    stream = SimpleNamespace(container=container, time_base=TICK, average_rate=Fraction(30))
    frames = [SimpleNamespace(pts=time) for time in times]
    assert [frame.pts for frame in timed(iter(frames), stream)] == expected


def test_a_slant_is_said(tmp_path, enhancer):
    source = displayed(make_clip(tmp_path / "clip.mp4", count=2), [[0.9, 0.4, 0], [-0.4, 0.9, 0], [0, 0, 1]])
    said = enhance_video(source, tmp_path / "better.mp4", enhancer).warnings
    assert said == ("it is turned by less than a quarter, which is not kept",)


def test_wide_pixels_of_a_turned_clip_are_tall(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mp4", count=2, sample_aspect_ratio=Fraction(16, 11))
    displayed(source, [[0, 1, 0], [-1, 0, 0], [64, 0, 1]])
    enhance_video(source, tmp_path / "better.mp4", enhancer)
    with av.open(str(tmp_path / "better.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.sample_aspect_ratio) == (64, 96, Fraction(11, 16))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_the_rate_is_kept(tmp_path, enhancer, suffix):
    source = make_clip(tmp_path / f"clip{suffix}")
    enhance_video(source, tmp_path / f"better{suffix}", enhancer)
    rates = []
    for path in (source, tmp_path / f"better{suffix}"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rates.append((stream.average_rate, stream.guessed_rate))
    assert rates[0] == rates[1]
    assert rates[0][0] == 30


def test_a_time_code_is_kept(tmp_path, enhancer):
    plain, source = make_clip(tmp_path / "plain.mp4"), tmp_path / "clip.mov"
    with av.open(str(plain)) as given, av.open(str(source), "w") as out:
        picture = out.add_stream_from_template(given.streams.video[0])
        picture.codec_context.framerate = Fraction(30)
        picture.metadata["timecode"] = "10:00:00:00"
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
    assert enhance_video(source, tmp_path / "better.mov", enhancer).warnings == ()
    with av.open(str(tmp_path / "better.mov")) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
        assert container.streams.video[0].metadata["timecode"] == "10:00:00:00"


def with_sound(path, plain, codec):
    """A clip with a second of silence."""
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        picture = out.add_stream_from_template(given.streams.video[0])
        sound = out.add_stream(codec, rate=48000, layout="mono")
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
        samples_at_a_time = sound.codec_context.frame_size or 1024
        kind = sound.codec_context.format.name
        for k in range(48000 // samples_at_a_time):
            shape = (1, samples_at_a_time)
            silence = np.zeros(shape, {"flt": np.float32, "s32": np.int32, "s16": np.int16}[kind.removesuffix("p")])
            frame = av.AudioFrame.from_ndarray(silence, kind, "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, k * samples_at_a_time, Fraction(1, 48000)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "suffix_in", "suffix_out", "is_kept"),
    [
        ("mp3", ".mp4", ".mp4", True),
        ("pcm_mulaw", ".mov", ".mov", True),
        ("pcm_mulaw", ".mov", ".mp4", False),
        ("flac", ".mkv", ".mov", False),
        ("adpcm_ima_wav", ".avi", ".mkv", False),
    ],
)
def test_sound_is_kept_where_the_container_takes_it(tmp_path, enhancer, codec, suffix_in, suffix_out, is_kept):
    plain = make_clip(tmp_path / f"plain{suffix_in}", count=6)
    source = with_sound(tmp_path / f"clip{suffix_in}", plain, codec)
    target = tmp_path / f"better{suffix_out}"
    said = enhance_video(source, target, enhancer).warnings
    assert said == (() if is_kept else (f"stream 1 ({codec}) is not kept, {suffix_out} cannot hold it",))
    assert packets_of(target, "audio") == (packets_of(source, "audio") if is_kept else [])


def test_flags_and_fonts_of_matroska_are_kept(tmp_path, enhancer):
    plain, source = make_clip(tmp_path / "plain.mkv", sounds=2), tmp_path / "clip.mkv"
    with av.open(str(plain)) as given, av.open(str(source), "w") as out:
        copies = [out.add_stream_from_template(stream) for stream in given.streams]
        copies[0].metadata["alpha_mode"] = "1"
        copies[2].disposition = Disposition.default | Disposition.forced
        out.add_attachment("letters.ttf", "font/ttf", b"a font")
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    said = enhance_video(source, tmp_path / "better.mp4", enhancer).warnings
    assert said == ("alpha is not kept", "stream 3 (attachment) is not kept")
    assert enhance_video(source, tmp_path / "better.mkv", enhancer).warnings == ("alpha is not kept",)
    with av.open(str(source)) as given, av.open(str(tmp_path / "better.mkv")) as container:
        assert [s.disposition for s in container.streams] == [s.disposition for s in given.streams]
        assert container.streams[2].disposition & Disposition.forced
        font = container.streams[3]
        assert (font.name, font.mimetype, font.data) == ("letters.ttf", "font/ttf", b"a font")
        assert "alpha_mode" not in {key.lower() for key in container.streams.video[0].metadata}


def with_cover(path, plain, kind, codec="mjpeg"):
    """The first picture or sound stream of a file behind a cover, as some programs write it."""
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        cover = out.add_stream(codec, rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p" if codec == "mjpeg" else "rgb24"
        cover.disposition = Disposition.attached_pic
        [first, *_] = (stream for stream in given.streams if stream.type == kind)
        copied = out.add_stream_from_template(first)
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), "rgb24").reformat(format=cover.pix_fmt)
        frame.pts, frame.time_base = 0, Fraction(1)
        out.mux([*cover.encode(frame), *cover.encode(None)])
        for packet in given.demux(first):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    return path


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_a_cover_is_kept(tmp_path, enhancer, codec):
    source = with_cover(tmp_path / "clip.mp4", make_clip(tmp_path / "plain.mp4"), "video", codec)
    assert enhance_video(source, tmp_path / "better.mp4", enhancer).warnings == ()
    with av.open(str(source)) as given, av.open(str(tmp_path / "better.mp4")) as container:
        covers = [
            next(bytes(packet) for packet in found.demux(stream))
            for found in (given, container)
            for stream in found.streams.video
            if stream.disposition & Disposition.attached_pic
        ]
    assert len(covers) == 2
    assert covers[0] == covers[1]
    for given in (source, tmp_path / "better.mkv"):  # there it is an attachment
        assert enhance_video(given, tmp_path / "again.mkv", enhancer, overwrite=True).warnings == ()
        shutil.copy(tmp_path / "again.mkv", tmp_path / "better.mkv")
        with av.open(str(tmp_path / "better.mkv")) as container:
            [cover] = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
            assert bytes(next(container.demux(cover))) == covers[0]
    said = enhance_video(source, tmp_path / "better.mov", enhancer).warnings
    assert said == ("the cover (stream 1) is not kept, .mov cannot hold it",)


def test_frames_of_another_size_get_that_of_the_first(tmp_path, enhancer, monkeypatch):
    small = make_clip(tmp_path / "small.ts", count=20)
    large = make_clip(tmp_path / "large.ts", count=20, size=(96, 144), times=[3000 * k for k in range(20, 40)])
    source = tmp_path / "clip.ts"
    source.write_bytes(small.read_bytes() + large.read_bytes())
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (8, 8))
    result = enhance_video(source, tmp_path / "better.mp4", enhancer, Coding("x264", 5))
    assert result.warnings == ("changes its size to 144x96; all frames get that of the first",)
    before, after = frames_of(source), frames_of(tmp_path / "better.mp4")
    assert {(frame.width, frame.height) for frame in before} == {(96, 64), (144, 96)}
    for given, got in zip(before, after, strict=True):
        expected = given.reformat(96, 64).to_ndarray(format="rgb24").astype(int)
        assert np.abs(got.to_ndarray(format="rgb24") - expected).mean() < 8


def test_a_cut_file_whose_index_is_whole_is_told(tmp_path, enhancer):
    source = make_clip(tmp_path / "whole.mp4", count=60)
    with (
        av.open(str(source)) as given,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        picture = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
    with av.open(str(tmp_path / "fast.mp4")) as given:
        stop = [packet.pos for packet in given.demux(video=0) if packet.size][40]
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "fast.mp4").read_bytes()[:stop])
    found = enhance_video(tmp_path / "cut.mp4", tmp_path / "better.mp4", enhancer)
    assert found.frames <= 40
    assert found.warnings[-1] == f"{found.frames} of 60 frames are there; is the file cut?"


def test_a_clip_that_starts_late_is_not_called_cut(tmp_path, enhancer):
    source = make_clip(tmp_path / "late.mkv", times=[900_000 + 3000 * k for k in range(20)])
    assert enhance_video(source, tmp_path / "better.mkv", enhancer).warnings == ()


def test_a_stream_that_cannot_be_sought_is_enhanced(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", count=6)
    raw = tmp_path / "raw.mp4"  # H.264 without a container
    with av.open(str(source)) as given, av.open(str(raw), "w", format="h264") as out:
        picture = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
    assert enhance_video(raw, tmp_path / "better.mp4", Enhancer(runtime="onnxruntime")).frames == 6


def test_a_name_may_have_a_colon(tmp_path, enhancer, monkeypatch):
    """FFmpeg takes what is before it for a protocol, unless the name begins with a folder."""
    monkeypatch.chdir(tmp_path)
    source = Path("2024-01-01T12:00.mp4" if os.name == "posix" else "clip.mp4")
    make_clip(source.absolute(), count=2, sounds=1)
    target = Path("12:01.mp4" if os.name == "posix" else "better.mp4")
    assert enhance_video(source, target, enhancer).frames == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((source.name, target.name))


def test_a_video_is_finished_though_its_parts_cannot_be_deleted(tmp_path, enhancer, monkeypatch):
    source = make_clip(tmp_path / "clip.mp4", count=2)

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "Access is denied", str(path))

    monkeypatch.setattr(os, "rmdir", refuse)
    result = enhance_video(source, tmp_path / "better.mp4", enhancer)
    assert result.warnings == (f"{tmp_path / '.better.mp4.parts'} is left and can be deleted",)
    assert len(frames_of(tmp_path / "better.mp4")) == 2


@pytest.mark.parametrize("name", ["join", "to_frame"])
def test_a_full_disk_is_no_fault_of_the_source(tmp_path, enhancer, monkeypatch, name):
    """While frames are coded, and while all is put together."""
    source = make_clip(tmp_path / "clip.mp4", count=2)

    def fill(*_):
        raise av.error.OSError(errno.ENOSPC, "No space left on device", "part")

    monkeypatch.setattr(video, name, fill)
    with pytest.raises(OSError, match=r"No space left on device: .*better\.mp4") as caught:
        enhance_video(source, tmp_path / "better.mp4", enhancer)
    assert caught.value.errno == errno.ENOSPC


def test_subtitles_and_chapters_are_copied(tmp_path, enhancer):
    plain = make_clip(tmp_path / "plain.mkv")
    source = tmp_path / "clip.mkv"
    with av.open(str(plain)) as given, av.open(str(source), "w") as out:
        picture = out.add_stream_from_template(given.streams.video[0])
        words = out.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        out.set_chapters(
            [{"id": 1, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
        )
        out.metadata["title"] = "a clip"
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
        line = av.Packet(b"hello")
        line.pts = line.dts = 100
        line.duration, line.time_base, line.stream = 200, Fraction(1, 1000), words
        out.mux(line)
    enhance_video(source, tmp_path / "better.mkv", enhancer)
    assert packets_of(tmp_path / "better.mkv", "subtitle") == [[b"hello"]]
    with av.open(str(tmp_path / "better.mkv")) as container:
        assert container.metadata["title"] == "a clip"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["one"]
    enhance_video(tmp_path / "better.mkv", tmp_path / "again.mp4", enhancer)
    assert enhance_video(tmp_path / "again.mp4", tmp_path / "third.mp4", enhancer).warnings == ()  # its track of names
    result = enhance_video(source, tmp_path / "better.mp4", enhancer)
    assert result.warnings == ("stream 1 (subrip) is not kept, .mp4 cannot hold it",)


def test_a_killed_run_goes_on_where_it_was(tmp_path, tiny_model):
    source = make_clip(tmp_path / "clip.mkv", count=40, gop_size=8)
    script = f"""
import time
from pathlib import Path
from subjectiveqe.enhancing import video
from subjectiveqe.enhancing.enhancer import Enhancer
video._SEGMENT_FRAMES = 8, 8
enhancer = Enhancer({str(tiny_model)!r}, "onnxruntime")
halt = lambda done, total: time.sleep(600 if done == 20 else 0)
video.enhance_video(Path({str(source)!r}), Path({str(tmp_path / "better.mkv")!r}), enhancer, progress=halt)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    parts = tmp_path / ".better.mkv.parts"
    deadline = time.monotonic() + 60
    while not (parts / "000001.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "better.mkv").exists()
    enhancer = Enhancer(tiny_model, "onnxruntime")
    result = enhance_video(source, tmp_path / "better.mkv", enhancer)
    assert result.frames == 40
    assert result.resumed == 16
    assert times_of(tmp_path / "better.mkv") == times_of(source)
    assert not parts.exists()
    enhance_video(source, tmp_path / "whole.mkv", enhancer)
    assert difference(tmp_path / "better.mkv", tmp_path / "whole.mkv") < 1


def test_frames_are_the_same_wherever_a_run_was_stopped(tmp_path, enhancer, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    source = make_clip(tmp_path / "clip.mkv", count=12, gop_size=4)
    with pytest.raises(KeyboardInterrupt):
        enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1"), progress=stopped_at(6))
    assert enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1")).resumed == 4
    enhance_video(source, tmp_path / "whole.mkv", enhancer, Coding("ffv1"))
    assert difference(tmp_path / "better.mkv", tmp_path / "whole.mkv") == 0


def test_another_job_does_not_take_the_segments(tmp_path, enhancer, tiny_model, monkeypatch):
    source, target = make_clip(tmp_path / "clip.mkv"), tmp_path / "better.mkv"

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "join", fail)
    with pytest.raises(KeyboardInterrupt):
        enhance_video(source, target, enhancer)
    monkeypatch.undo()
    other = onnx.load(tiny_model)
    other.metadata_props.add(key="step", value="2")
    onnx.save(other, tmp_path / "other.onnx")
    bare = Enhancer(enhancer.name, enhancer.runtime, lock_colors=False)
    faint, trained_on = (
        Enhancer(name, "onnxruntime", strength)
        for name, strength in ((tiny_model, 0.5), (tmp_path / "other.onnx", 1.0))
    )
    for worker, coding in ((enhancer, Coding("ffv1")), *((one, Coding()) for one in (bare, faint, trained_on))):
        with pytest.raises(ConfigError, match=r"holds 20 finished frames of another source, other opt.*--overwrite"):
            enhance_video(source, target, worker, coding)
    os.utime(source, (0, 0))
    with pytest.raises(ConfigError, match="holds 20 finished frames of another source"):
        enhance_video(source, target, enhancer)
    assert enhance_video(source, target, enhancer, Coding("ffv1"), overwrite=True).resumed == 0
    assert not (tmp_path / ".better.mkv.parts").exists()


def test_one_process_at_a_time_makes_a_video(tmp_path, enhancer):
    source, target = make_clip(tmp_path / "clip.mkv", count=4), tmp_path / "better.mkv"

    def begin_too(*_):
        with pytest.raises(ConfigError, match="another process makes this video"):
            enhance_video(source, target, enhancer)

    assert enhance_video(source, target, enhancer, progress=begin_too).frames == 4
    parts = tmp_path / ".again.mkv.parts"
    parts.mkdir()
    (parts / "job.json").write_text("another")

    def drop_it(*_):
        with pytest.raises(ConfigError, match="another process makes this video"):
            enhance_video(source, tmp_path / "again.mkv", enhancer, overwrite=True)

    assert enhance_video(source, tmp_path / "again.mkv", enhancer, overwrite=True, progress=drop_it).frames == 4


def test_what_cannot_be_is_said_in_one_line(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mp4", count=2)
    (tmp_path / "there.mp4").write_bytes(b"mine")
    (tmp_path / "text.mp4").write_text("no video")
    for target, coding, message in [
        ("better.avi", Coding(), "cannot write .avi"),
        ("better", Coding(), "expected the name of a video"),
        ("better.mp4", Coding("ffv1"), "name the result .mkv"),
        ("there.mp4", Coding(), "exists already"),
        ("clip.mp4", Coding(), "is the source"),
    ]:
        with pytest.raises(ConfigError, match=message):
            enhance_video(source, tmp_path / target, enhancer, coding)
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"
    for name, reason in (("text.mp4", "invalid data found when processing input"), ("gone.mp4", "no such file")):
        with pytest.raises(ImageError, match=f"{name}: {reason}$"):
            enhance_video(tmp_path / name, tmp_path / "better.mp4", enhancer)
    with pytest.raises(ConfigError, match="unknown video codec"):
        Coding("av1")
    with pytest.raises(ConfigError, match="out of range"):
        Coding("x264", 60)


def test_what_a_phone_says_of_a_clip_is_kept_or_named(tmp_path, enhancer):
    said = {"com.apple.quicktime.make": "Apple", "com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "title": "A"}
    source = make_clip(tmp_path / "plain.mov", count=4)
    with (
        av.open(str(source)) as given,
        av.open(str(tmp_path / "clip.mov"), "w", options={"movflags": "use_metadata_tags"}) as out,
    ):
        out.metadata.update(said)
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    for name in ("better.mov", "better.mkv", "better.mp4"):
        warnings = enhance_video(tmp_path / "clip.mov", tmp_path / name, enhancer).warnings
        with av.open(str(tmp_path / name)) as result:
            kept = {key.lower(): value for key, value in result.metadata.items()}
        lost = [key for key in said if kept.get(key.lower()) != said[key]]
        told = [f"tags that .mp4 does not hold are not kept: {', '.join(sorted(map(str.lower, lost)))}"] if lost else []
        assert list(warnings) == told
        assert bool(lost) == (name == "better.mp4")


@pytest.mark.parametrize("name", ["better.mp4", "better.mkv"])
def test_a_broadcast_begins_with_its_pictures(tmp_path, enhancer, name):
    late_s = 36000
    source = make_clip(tmp_path / "clip.ts", times=[90000 * late_s + 3000 * k for k in range(20)])
    assert enhance_video(source, tmp_path / name, enhancer).frames == 20
    with av.open(str(tmp_path / name)) as result:
        assert result.duration < 2e6
        assert next(result.decode(video=0)).time < 0.5


def recording(path, source, begin_s):
    """The same as MPEG-TS, several packets of sound together, whose clock says another time at its beginning."""
    options = {"avoid_negative_ts": "disabled", "max_delay": "700000"}
    with av.open(str(source)) as given, av.open(str(path), "w", format="mpegts", options=options) as out:
        streams = [out.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.size:
                packet.pts, packet.dts = packet.pts + begin_s * 90000, packet.dts + begin_s * 90000
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path.read_bytes()


def sound_times(path, number=0):
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(audio=number)]


JUMPS = [(0, 0), (3600, 0), (0, 3600, 20), (2**33 // 90000 - 1,)]


@pytest.mark.parametrize(
    ("name", "begins_s"), [*(("better.mp4", begins) for begins in JUMPS), ("better.mkv", JUMPS[2])]
)
def test_recordings_put_together_follow_each_other(tmp_path, enhancer, name, begins_s):
    """Their clock goes back, or ahead, or begins anew after 26 hours."""
    source = make_clip(tmp_path / "one.ts", count=30, sounds=2)
    parts = [recording(tmp_path / "part.ts", source, begin_s) for begin_s in begins_s]
    (tmp_path / "clip.ts").write_bytes(b"".join(parts))
    made = enhance_video(tmp_path / "clip.ts", tmp_path / name, enhancer)
    jumps = [f"its clock jumps at {k:.1f} s; what follows comes right behind" for k in range(1, len(parts))]
    assert (made.frames, list(made.warnings)) == (30 * len(parts), jumps)
    assert np.diff(times_of(tmp_path / name)) == pytest.approx(1 / 30, abs=0.03)
    for sound in range(2):
        times_s = sound_times(tmp_path / name, sound)
        assert len(times_s) == len(sound_times(tmp_path / "one.ts", sound)) * len(parts)
        begins = [times_s[0], *(after for before, after in pairwise(times_s) if after - before > 0.2)]
        assert begins == pytest.approx([1.02 * k for k in range(len(parts))], abs=0.05)


def test_program_streams_put_together_follow_each_other(tmp_path, enhancer):
    """Where FFmpeg says of few packets where they lie."""
    with av.open(str(tmp_path / "one.mpg"), "w", format="mpeg", options={"muxrate": "2000000"}) as out:
        picture, sound = out.add_stream("mpeg2video", rate=25), out.add_stream("mp2", rate=48000, layout="mono")
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        for k in range(50):
            image = np.full((64, 96, 3), 4 * k, np.uint8)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(picture.encode(None))
        for k in range(80):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 1152 * k, Fraction(1, 48000)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    (tmp_path / "clip.mpg").write_bytes((tmp_path / "one.mpg").read_bytes() * 2)
    made = enhance_video(tmp_path / "clip.mpg", tmp_path / "better.mkv", enhancer)
    assert len(made.warnings) == 1
    assert "its clock jumps at" in made.warnings[0]
    times_s = times_of(tmp_path / "better.mkv")
    assert np.diff(times_s) == pytest.approx(0.04, abs=0.035)
    heard_s = sound_times(tmp_path / "better.mkv")
    assert len(heard_s) == 2 * len(sound_times(tmp_path / "one.mpg"))
    assert np.diff(heard_s).max() < 0.25


@pytest.mark.parametrize(
    ("pictures_s", "sound_s", "jumps"),
    [
        ([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2], 1),
        ([0, 1, 2, 500, 501, 502], [0, 1, 2, 500, 501, 502], 1),
        ([0, 1, 2, 0, 1, 2], [], 1),
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 103, 104, 105], 0),  # a hole in the sound
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2], 0),
        ([0, 1, 2, 1000, 4, 5], [0, 1, 2, 3, 4, 5], 0),  # one that is wrong
        ([0, 1, 2, -5, 4, 5], [0, 1, 2, 3, 4, 5], 0),
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 9], 0),
        ([0, 12, 24, 36, 48, 60], [], 0),  # slides
        ([0, 1, 2, 17, 18, 19], [0, 1, 2, 17, 18, 19], 0),  # reception was lost
        ([0, 1, 2, 500, 501, 502, 1000, 1001], [0, 1, 2, None, None, None, 1000, 1001], 2),  # no sound in the middle
        ([0, 1, 2, 700, 500, 501], [0, 1, 2, 500, 501, 502], 1),  # a wrong one between
        ([0, 100, 200, 300, 400], [], 0),  # slow slides
        ([], [], 0),
    ],
)
def test_the_clock_jumps_where_all_streams_do_and_stay(pictures_s, sound_s, jumps):
    streams = [SimpleNamespace(type=kind, index=index) for index, kind in enumerate(("video", "audio"))]
    packets = [
        SimpleNamespace(stream=stream, pos=10 * k + stream.index, dts=time_s, time_base=1, size=1)
        for k, times_s in enumerate(zip_longest(pictures_s, sound_s))
        for stream, time_s in zip(streams, times_s, strict=True)
        if time_s is not None
    ]
    container = SimpleNamespace(streams=streams, demux=lambda _: iter(packets))
    assert len(_common(container, _jumps(container))) == jumps


@pytest.mark.parametrize("wrong", [4, 8])
def test_a_single_wrong_time_moves_nothing(tmp_path, monkeypatch, wrong):
    times_s = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    times_s[wrong] = 1000
    stream = SimpleNamespace(type="video", index=0, average_rate=1, disposition=0)
    packets = [
        SimpleNamespace(stream=stream, pos=k, pts=time_s, dts=time_s, time_base=1, size=1, duration=1)
        for k, time_s in enumerate(times_s)
    ]
    form = SimpleNamespace(name="mpegts")

    @contextmanager
    def opened(_):
        streams = [stream]
        yield SimpleNamespace(streams=streams, demux=lambda _: iter(packets), format=form, start_time=0)

    monkeypatch.setattr(clock_module, "open_video", opened)
    monkeypatch.setattr(clock_module, "picture_stream", lambda _: stream)
    clock = clock_of(tmp_path / "clip.ts")
    assert (clock.places, clock.jumps_s, clock.shifts_s, clock.end_s) == ((6,), (6,), (0, 6), 10)


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ((0, 9, 18, 17, 27, 36), [0, 9, 17, 27, 36]),  # of two, the one that is ahead
        ((0, 9, 18, 7, 27, 36), [0, 9, 18, 27, 36]),  # one that goes back
        ((0, 9, 999, 18, 27, 36), [0, 9, 18, 27, 36]),  # one that is ahead
        ((0, 9, 9, 18), [0, 9, 18]),
    ],
)
def test_sound_that_is_out_of_order_is_left_out_and_counted(times, kept):
    def packet(dts):
        return SimpleNamespace(size=1, is_discard=False, pos=0, pts=dts, dts=dts, time_base=TICK, stream=sound)

    sound, lost = SimpleNamespace(index=1, type="audio"), Counter()
    packets = [packet(dts) for dts in times]
    assert [packet.dts for packet in _in_order(packets, "mp4", lost)] == kept
    assert lost == {1: 1}


def test_a_subtitle_does_not_wait_for_the_next():
    """Between others that wait for none, or it would come when its time is long over."""
    sound, text = (SimpleNamespace(index=k, type=kind) for k, kind in enumerate(("audio", "subtitle")))
    told = [(sound, 0), (text, 1), (sound, 2), (sound, 4), (sound, None), (sound, 6), (text, 9), (text, 5), (sound, 8)]
    packets = [SimpleNamespace(size=1, dts=dts, stream=stream) for stream, dts in told]
    lost = Counter()
    kept = [(packet.stream.type[0], packet.dts) for packet in _in_order(packets, "mp4", lost)]
    assert kept == [("s", 1), ("a", 0), ("a", 2), ("a", 4), ("a", None), ("s", 9), ("a", 6), ("a", 8)]
    assert lost == {1: 1}


def test_subtitles_lie_in_the_file_where_they_are_to_be_seen(tmp_path, enhancer):
    """Players read Matroska from front to back."""
    source = make_clip(tmp_path / "plain.mp4", count=1400, times=[45000 * k for k in range(60)], sounds=1)
    with av.open(str(source)) as given, av.open(str(tmp_path / "clip.mkv"), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in given.streams}
        words = out.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        for time in (500, 28000):
            line = av.Packet(b"hello")
            line.pts = line.dts = time
            line.duration, line.time_base, line.stream = 100, Fraction(1, 1000), words
            out.mux(line)
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    assert enhance_video(tmp_path / "clip.mkv", tmp_path / "better.mkv", enhancer).warnings == ()
    with av.open(str(tmp_path / "better.mkv")) as result:
        order = [(packet.stream.type, float(packet.pts * packet.time_base)) for packet in result.demux() if packet.size]
    kinds, times_s = zip(*order, strict=True)
    place = kinds.index("subtitle")
    assert max(times_s[:place], default=0) < times_s[place] + 1


def test_matroska_takes_sound_that_comes_at_one_time():
    """Its times are whole milliseconds, and some packets are shorter."""
    sound, lost = SimpleNamespace(index=1, type="audio"), Counter()
    packets = [SimpleNamespace(size=1, dts=dts, stream=sound) for dts in (0, 1, 1, 2)]
    assert [*_in_order(packets, "matroska", lost)] == packets
    assert not lost


@pytest.mark.parametrize(("times_s", "until_s"), [((0, 3, 5), 12), ((0, 4, 4.04, 4.08, 4.12, 4.16), 4.2)])
def test_the_last_picture_of_a_clip_with_b_frames_is_seen_as_long_as_it_was(tmp_path, enhancer, times_s, until_s):
    """Whose packets say when the next one is decoded."""
    with av.open(str(tmp_path / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt, context.time_base = 96, 64, "yuv420p", TICK
        context.options = {"bf": "3", "b-adapt": "0"}
        for time_s in times_s:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), int(20 * time_s), np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time_s * 90000), TICK
            out.mux(stream.encode(frame))
        packets = stream.encode(None)
        packets[-1].duration = round((until_s - max(times_s)) * 90000)
        out.mux(packets)
    with av.open(str(tmp_path / "clip.mp4")) as given:
        stream = given.streams.video[0]
        ends_s = float((stream.start_time + stream.duration) * stream.time_base)
    made = enhance_video(tmp_path / "clip.mp4", tmp_path / "better.mp4", enhancer)
    assert (made.frames, made.warnings) == (len(times_s), ())
    with av.open(str(tmp_path / "better.mp4")) as result:
        assert result.duration / 1e6 == pytest.approx(ends_s, abs=0.05)


def test_streams_that_begin_later_do_not_end_the_run(tmp_path, enhancer):
    """As of two channels one after the other; PyAV counts streams at the beginning."""
    first = recording(tmp_path / "one.ts", make_clip(tmp_path / "a.ts", sounds=1), 0)
    options = {"mpegts_start_pid": "600", "mpegts_pmt_start_pid": "700", "avoid_negative_ts": "disabled"}
    with av.open(str(tmp_path / "a.ts")) as given, av.open(str(tmp_path / "b.ts"), "w", options=options) as out:
        streams = [out.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    (tmp_path / "clip.ts").write_bytes(first * 8 + (tmp_path / "b.ts").read_bytes())
    made = enhance_video(tmp_path / "clip.ts", tmp_path / "better.mkv", enhancer)
    assert made.frames == 160
    assert sum("its clock jumps" in warning for warning in made.warnings) == len(made.warnings) == 7


def test_what_was_cut_off_on_a_phone_is_not_missed_and_not_heard(tmp_path, enhancer):
    """An edit list hides what comes before a time; Matroska has none."""
    source = make_clip(tmp_path / "clip.mp4", count=60, sounds=1)
    content, cut_s = bytearray(source.read_bytes()), 0.5
    for found, rate in zip(re.finditer(b"elst", bytes(content)), (90000, 48000), strict=True):
        place = found.end() + 8  # behind the version and the number of entries
        lasts, begins = struct.unpack_from(">Ii", content, place)
        struct.pack_into(">Ii", content, place, lasts - int(cut_s * 1000), begins + int(cut_s * rate))
    (tmp_path / "cut.mp4").write_bytes(content)
    shown = len(frames_of(tmp_path / "cut.mp4"))
    assert shown < 50
    for name in ("better.mp4", "better.mkv"):
        result = enhance_video(tmp_path / "cut.mp4", tmp_path / name, enhancer)
        assert (result.frames, result.warnings) == (shown, ())
        with av.open(str(tmp_path / name)) as made:
            assert abs(next(made.decode(audio=0)).time) < 0.05


def test_captions_in_the_pictures_are_named(tmp_path, enhancer):
    """As television has them, from the third frame on (ATSC A/53, part 4)."""
    captions = bytes([0xFC, 0x94, 0x2C, 0xFC, 0xC8, 0xE9])
    payload = bytes([0xB5, 0, 0x31]) + b"GA94" + bytes([3, 0x42, 0xFF]) + captions + b"\xff"
    said = b"\0\0\1" + bytes([6, 4, len(payload)]) + payload + b"\x80"
    plain = make_clip(tmp_path / "plain.ts", count=8)
    with av.open(str(plain)) as given, av.open(str(tmp_path / "clip.ts"), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if not packet.size:
                continue
            content = bytes(packet)
            slices = [m.start() for m in re.finditer(b"\0\0\1", content) if content[m.end()] & 31 in (1, 5)]
            if number > 1:
                content = content[: slices[0]] + said + content[slices[0] :]
            copy = av.Packet(content)
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            copy.is_keyframe = packet.is_keyframe
            out.mux(copy)
    assert enhance_video(plain, tmp_path / "a.mkv", enhancer).warnings == ()
    result = enhance_video(tmp_path / "clip.ts", tmp_path / "b.mkv", enhancer)
    assert (result.frames, result.warnings) == (8, ("closed captions are not kept",))


def test_a_view_all_around_is_named(tmp_path, enhancer):
    """By the box that cameras write into the track (Spherical Video V1)."""
    content = bytearray(make_clip(tmp_path / "plain.mp4", count=4).read_bytes())
    name = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    tags = {"Spherical": "true", "Stitched": "true", "StitchingSoftware": "x", "ProjectionType": "equirectangular"}
    view = "".join(f"<GSpherical:{tag}>{value}</GSpherical:{tag}>" for tag, value in tags.items())
    said = f'<rdf:SphericalVideo xmlns:rdf="{name}" xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">'
    said = f'<?xml version="1.0"?>{said}{view}</rdf:SphericalVideo>'.encode()
    box = struct.pack(">I", 24 + len(said)) + b"uuid" + bytes.fromhex("ffcc8263f8554a938814587a02521fdd") + said
    movie, track = content.index(b"moov") - 4, content.index(b"trak") - 4
    [whole], [part] = struct.unpack_from(">I", content, movie), struct.unpack_from(">I", content, track)
    content[track + part : track + part] = box
    struct.pack_into(">I", content, track, part + len(box))
    struct.pack_into(">I", content, movie, whole + len(box))
    (tmp_path / "clip.mp4").write_bytes(content)
    warnings = enhance_video(tmp_path / "clip.mp4", tmp_path / "better.mp4", enhancer).warnings
    assert warnings == ("the mark of a 360-degree or 3D video is not kept",)


def test_the_command_enhances_a_video(tmp_path, tiny_model):
    source = make_clip(tmp_path / "clip.mp4", count=4)
    options = ["-o", str(tmp_path / "better.mp4"), "--model", str(tiny_model), "--video-codec", "x265", "--crf", "20"]
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--dry-run"])
    assert told.output == f"{source} -> {tmp_path / 'better.mp4'}\n"
    assert [path.name for path in tmp_path.iterdir() if "better" in path.name] == []
    told = CliRunner().invoke(app, ["enhance", str(source), *options])
    assert told.exit_code == 0, told.output
    assert "better.mp4: 4 frames\n1 enhanced, 0 skipped, 0 failed; 0.0 megapixels in" in told.output
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--dry-run"])
    assert told.output.endswith("better.mp4 (exists)\n")
    jobs = {"source": str(source), "target": str(tmp_path / "better.mp4")}
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--dry-run", "--json"])
    assert json.loads(told.output) == {**jobs, "status": "planned", "exists": True}
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--skip-existing", "--json"])
    assert json.loads(told.output)["status"] == "skipped"
    told = json.loads(CliRunner().invoke(app, ["enhance", str(source), *options, "--overwrite", "--json"]).output)
    done = {"status": "done", "reason": "", "frames": 4, "resumed": 0, "warnings": [], "taken_for": None}
    assert told == jobs | done | {"megapixels": 4 * 64 * 96 / 1e6, "seconds": told["seconds"]}
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--skip-existing"])
    assert told.output.startswith("0 enhanced, 1 skipped, 0 failed")
    assert CliRunner().invoke(app, ["enhance", str(source), *options, "--skip-existing", "--quiet"]).output == ""
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--skip-existing", "--dry-run"])
    assert told.output.endswith("better.mp4 (exists)\n")
    told = CliRunner().invoke(app, ["enhance", str(source), *options, "--overwrite", "--faithful", "--jobs", "2"])
    assert str(told.exception) == "--jobs, --faithful: not for videos; leave it out"
    for named in ("better.png", source.name):
        for option in ("--dry-run", "--skip-existing"):
            told = CliRunner().invoke(app, ["enhance", str(source), "-o", str(tmp_path / named), option])
            assert isinstance(told.exception, ConfigError), told.output
    told = CliRunner().invoke(app, ["enhance", str(tmp_path / "gone.mp4"), *options, "--dry-run"])
    assert (told.exit_code, told.output) == (2, f"failed: {tmp_path / 'gone.mp4'}: no such file\n")
    told = CliRunner().invoke(app, ["enhance", str(source), str(tmp_path / "a.mp4"), *options])
    assert str(told.exception).endswith(
        "better.mp4: expected a folder for the results, found a file; give another name"
    )


def test_a_folder_of_pictures_and_videos(tmp_path, tiny_model, draw_image):
    """A bad clip is named and the others go on; those of containers that are not written become .mkv."""
    folder, out = tmp_path / "holiday", tmp_path / "better"
    (folder / "day 2").mkdir(parents=True)
    make_clip(folder / "a.mp4", count=3)
    make_clip(folder / "day 2" / "c.avi", count=2)
    (folder / "b.mov").write_bytes(b"no film")
    write_png(folder / "z.png", draw_image((40, 50)))
    words = ["enhance", str(folder), "-r", "-o", str(out), "--model", str(tiny_model), "--videos", "--json"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 1
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(Path(line["target"]).name, line["status"]) for line in lines] == [
        ("z.png", "done"),
        ("a.mp4", "done"),
        ("b.mov", "failed"),
        ("c.mkv", "done"),
    ]
    assert lines[2]["reason"].startswith("invalid data")
    assert [line.get("frames") for line in lines] == [None, 3, None, 2]
    assert sorted(path.name for path in out.rglob("*")) == ["a.mp4", "c.mkv", "day 2", "z.png"]
    told = CliRunner().invoke(app, [*words, "--skip-existing"])
    assert [json.loads(line)["status"] for line in told.stdout.splitlines()] == ["skipped"] * 3 + ["failed"]


def test_who_watches_a_batch_may_end_it(tmp_path, enhancer):
    class Broken(BatchProgress):
        def advanced(self, _):
            raise RuntimeError("no screen")

    with pytest.raises(RuntimeError, match="no screen"):
        enhance_files([make_clip(tmp_path / "a.mp4", count=3)], tmp_path / "out", enhancer, progress=Broken())


def test_a_batch_of_videos_goes_on_where_it_was(tmp_path, enhancer, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    sources = [make_clip(tmp_path / name, count=8, gop_size=4) for name in ("a.mp4", "b.mp4")]
    told = []

    class Stopping(BatchProgress):
        def advanced(self, files):
            told.append(files)
            if files >= 1.75:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enhance_files(sources, tmp_path / "out", enhancer, progress=Stopping())
    assert told == sorted(told)
    assert (tmp_path / "out" / "a.mp4").exists()
    outcomes = enhance_files(sources, tmp_path / "out", enhancer, existing="skip").outcomes
    assert [outcome.status for outcome in outcomes] == ["skipped", "done"]
    assert (outcomes[1].video.frames, outcomes[1].video.resumed) == (8, 4)
    assert outcomes[1].megapixels == pytest.approx(4 * 64 * 96 / 1e6)


def test_lossless_videos_without_names_become_mkv(tmp_path, enhancer):
    source = make_clip(tmp_path / "a.mp4", count=2)
    [done] = enhance_files([source], None, enhancer, suffix="-better", coding=Coding("ffv1")).outcomes
    assert done.job.target.name == "a-better.mkv"


def test_what_a_container_says_of_itself_stays_in_it(tmp_path, enhancer):
    enhance_video(make_clip(tmp_path / "a.mp4", count=2), tmp_path / "a.mkv", enhancer)
    with av.open(str(tmp_path / "a.mkv")) as made:
        assert not [tag for tag in made.metadata if "brand" in tag.lower()]


def test_videos_are_not_replaced(tmp_path, enhancer):
    source = make_clip(tmp_path / "a.mp4", count=2)
    with pytest.raises(ConfigError, match=r"a\.mp4: --in-place is not for videos; give --out or --suffix"):
        enhance_files([source], None, enhancer, in_place=True)
    (tmp_path / "link.mp4").hardlink_to(source)
    with pytest.raises(ConfigError, match="would overwrite the input"):
        enhance_files([source], tmp_path / "link.mp4", enhancer, existing="overwrite")


def test_two_videos_that_would_become_one_are_refused(tmp_path, enhancer):
    for name in ("a.mkv", "a.avi"):
        (tmp_path / name).write_bytes(b"a film")
    with pytest.raises(ConfigError, match="would both become"):
        enhance_files([tmp_path], tmp_path / "out", enhancer, videos=True)


def test_times_rise_wherever_a_run_was_stopped(tmp_path, enhancer, monkeypatch):
    """Of a file without timestamps, too."""
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    source = make_clip(tmp_path / "clip.h264", count=12, gop_size=4)
    with pytest.raises(KeyboardInterrupt):
        enhance_video(source, tmp_path / "better.mkv", enhancer, progress=stopped_at(6))
    assert enhance_video(source, tmp_path / "better.mkv", enhancer).resumed == 4
    enhance_video(source, tmp_path / "whole.mkv", enhancer)
    assert times_of(tmp_path / "better.mkv") == times_of(tmp_path / "whole.mkv")


@pytest.mark.parametrize(("owner", "name"), [(Steadier, "save"), (video, "write_text")])
def test_a_run_may_be_stopped_between_a_segment_and_its_note(tmp_path, enhancer, monkeypatch, owner, name):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    source = make_clip(tmp_path / "clip.mkv", count=12, gop_size=4)
    write = getattr(owner, name)

    def stop(*arguments):
        if any("000001" in str(argument) for argument in arguments):
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1"))
    assert enhance_video(source, tmp_path / "better.mkv", enhancer, Coding("ffv1")).resumed == 4
    enhance_video(source, tmp_path / "whole.mkv", enhancer, Coding("ffv1"))
    assert difference(tmp_path / "better.mkv", tmp_path / "whole.mkv") == 0


def test_a_damaged_note_costs_its_segment(tmp_path, enhancer, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    source = make_clip(tmp_path / "clip.mkv", count=12, gop_size=4)
    with pytest.raises(KeyboardInterrupt):
        enhance_video(source, tmp_path / "better.mkv", enhancer, progress=stopped_at(6))
    (tmp_path / ".better.mkv.parts" / "000000.json").write_text("")
    assert enhance_video(source, tmp_path / "better.mkv", enhancer).resumed == 0


@pytest.mark.parametrize("note", ["", "null"])
def test_a_damaged_note_behind_others_costs_them_too(tmp_path, enhancer, monkeypatch, note):
    """What the first frame of its segment depends on is gone by then."""
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    source = make_clip(tmp_path / "clip.mkv", count=16, gop_size=4)
    with pytest.raises(KeyboardInterrupt):
        enhance_video(source, tmp_path / "better.mkv", enhancer, progress=stopped_at(14))
    (tmp_path / ".better.mkv.parts" / "000002.json").write_text(note)
    result = enhance_video(source, tmp_path / "better.mkv", enhancer)
    assert (result.frames, result.resumed) == (16, 0)


def test_segments_of_another_version_are_not_taken(tmp_path, enhancer, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (4, 4))
    source = make_clip(tmp_path / "clip.mkv", count=12, gop_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(video, "__version__", "0.0.1")
        with pytest.raises(KeyboardInterrupt):
            enhance_video(source, tmp_path / "better.mkv", enhancer, progress=stopped_at(6))
    with pytest.raises(ConfigError, match="add --overwrite"):
        enhance_video(source, tmp_path / "better.mkv", enhancer)


@pytest.mark.parametrize("length", [245, 251])
@pytest.mark.parametrize("letter", ["x", "\u3042"], ids=["of one byte", "of three"])
def test_a_name_may_be_as_long_as_the_disk_lets_it(tmp_path, enhancer, letter, length):
    source = make_clip(tmp_path / "clip.mkv", count=3)
    target = tmp_path / (letter * (length // len(letter.encode())) + ".mkv")
    assert enhance_video(source, target, enhancer).frames == 3
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


@pytest.mark.parametrize("codec", ["x264", "x265"])
@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63)])
def test_gray_clips_may_have_odd_sides(tmp_path, enhancer, codec, size):
    source = make_clip(tmp_path / "clip.mkv", count=3, size=size, pix_fmt="gray", codec="ffv1")
    result = enhance_video(source, tmp_path / "better.mkv", enhancer, Coding(codec))
    assert (result.frames, result.frame_px) == (3, size[::-1])
    chroma = "420" if size == (48, 64) else "444"
    assert {frame.format.name for frame in frames_of(tmp_path / "better.mkv")} == {f"yuv{chroma}p"}


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_of_which_only_channels_are_known_is_kept(tmp_path, enhancer, suffix, layout):
    """PCM in AVI says how many channels it has, not which."""
    source = tmp_path / "camera.avi"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=48000, layout=layout)
        count = sound.codec_context.layout.nb_channels
        for k in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 40 * k, np.uint8), "rgb24")
            container.mux(stream.encode(picture))
            samples_of = np.full((1, count * 1920), 100 * k, np.int16)
            frame = av.AudioFrame.from_ndarray(samples_of, "s16", layout)
            frame.sample_rate, frame.pts, frame.time_base = 48000, 1920 * k, Fraction(1, 48000)
            container.mux(sound.encode(frame))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    content = bytearray(source.read_bytes())
    if count > 2:  # which FFmpeg writes with a mask that says which
        start = content.index(struct.pack("<HHI", 0xFFFE, count, 48000))
        content[start + 20 : start + 24] = bytes(4)
        source.write_bytes(content)
    with av.open(str(source)) as given:
        assert given.streams.audio[0].codec_context.layout.name == f"{count} channels"
    enhance_video(source, tmp_path / f"better{suffix}", enhancer)
    with av.open(str(tmp_path / f"better{suffix}")) as made:
        assert sum(frame.samples for frame in made.decode(audio=0)) == 5 * 1920
        assert made.streams.audio[0].codec_context.layout.nb_channels == count


def test_pictures_of_an_unknown_codec_are_named(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mkv", count=3)
    source.write_bytes(source.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    with pytest.raises(ImageError, match="no picture stream of a codec that is known here"):
        enhance_video(source, tmp_path / "better.mkv", enhancer)


def test_a_link_to_the_source_is_the_source(tmp_path, enhancer):
    source = make_clip(tmp_path / "clip.mp4", count=2)
    before = source.read_bytes()
    (tmp_path / "link.mp4").hardlink_to(source)
    with pytest.raises(ConfigError, match="is the source"):
        enhance_video(source, tmp_path / "link.mp4", enhancer, overwrite=True)
    assert source.read_bytes() == before


def test_large_pictures_make_short_segments():
    def form(height, width):
        return video._Form(height, width, "yuv420p", Fraction(1), Fraction(25), TICK, {}, Turn())

    assert [form(*size).segment_frames for size in ((2160, 3840), (1080, 1920), (64, 96))] == [48, 192, 200]


@pytest.mark.parametrize(
    ("source_keys", "expected"),
    [(5, [0, 10, 20, 30]), (11, [0, 11, 22, 33]), (100, [0, 12, 24, 36])],
    ids=["often", "now and then", "hardly"],
)
def test_a_result_has_its_key_frames_where_the_source_has_them(tmp_path, enhancer, monkeypatch, source_keys, expected):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", (8, 8))
    source = make_clip(tmp_path / "clip.mp4", count=40, gop_size=source_keys)
    enhance_video(source, tmp_path / "better.mp4", enhancer)
    assert [k for k, frame in enumerate(frames_of(tmp_path / "better.mp4")) if frame.key_frame] == expected


def test_a_long_segment_has_one_key_frame(tmp_path, enhancer):
    """x264 would begin anew after 250 frames."""
    picture = np.ascontiguousarray(read_rgb(samples()[0])[:32, :48])
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "300"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(260):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    enhance_video(tmp_path / "clip.mp4", tmp_path / "better.mp4", enhancer)
    assert [k for k, frame in enumerate(frames_of(tmp_path / "better.mp4")) if frame.key_frame] == [0]


def test_timestamps_rise_where_ticks_are_longer_than_frames():
    container = SimpleNamespace(format=SimpleNamespace(name="mpegts"))
    stream = SimpleNamespace(container=container, time_base=Fraction(1, 25), average_rate=Fraction(30))
    frames = [SimpleNamespace(pts=None) for _ in range(3)]
    assert [frame.pts for frame in timed(iter(frames), stream)] == [0, 1, 2]


def test_half_columns_of_a_turned_clip_are_kept_whole(tmp_path, enhancer):
    source = displayed(
        make_clip(tmp_path / "clip.mp4", count=2, pix_fmt="yuv422p"), [[0, 1, 0], [-1, 0, 0], [64, 0, 1]]
    )
    enhance_video(source, tmp_path / "better.mp4", enhancer)
    assert frames_of(tmp_path / "better.mp4")[0].format.name == "yuv444p"


def test_a_song_with_a_cover_is_no_video(tmp_path, enhancer):
    source = with_cover(tmp_path / "song.mp4", make_clip(tmp_path / "plain.mp4", sounds=1), "audio")
    with pytest.raises(ImageError, match="has no picture stream"):
        enhance_video(source, tmp_path / "better.mp4", enhancer)


def test_a_file_that_ends_behind_its_header_is_named(tmp_path, enhancer):
    with av.open(str(tmp_path / "header.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.start_encoding()
    with pytest.raises(ImageError, match=r"header\.mkv: ends where more is expected; is the file cut\?"):
        enhance_video(tmp_path / "header.mkv", tmp_path / "better.mp4", enhancer)
