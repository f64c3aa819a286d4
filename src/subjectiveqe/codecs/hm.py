"""HM, the HEVC reference encoder, as an external program of the user's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..color import rgb_to_ycbcr, ycbcr_to_rgb
from ..errors import CodecError
from ..files import sha256_of
from ..images import RGB
from .base import Codec, Coded, check_multiple


@dataclass(frozen=True)
class Hm(Codec):
    """HM all-intra, YCbCr 4:4:4 BT.601 limited range, 8 bits, with the arguments of the reference figures.

    Source: HM-16.5, `cfg/encoder_intra_main_rext.cfg`. A 768x512 picture takes some 2 s.

    Args:
        encoder: `TAppEncoderStatic`, built by the user.
        config: `encoder_intra_main_rext.cfg` of the same HM.
        timeout_s: time limit for one picture in seconds.
    """

    name = "hm"
    level_name = "qp"
    level_range = (0, 51)
    encoder: Path = Path("TAppEncoderStatic")
    config: Path = Path("encoder_intra_main_rext.cfg")
    timeout_s: float = 600.0

    def settings(self) -> dict[str, str]:
        """See `Codec.settings`; where the files lie, and a time limit, change no pixel."""
        return {"encoder": sha256_of(self.encoder), "config": sha256_of(self.config)}

    def code(self, rgb: RGB, level: int) -> Coded:
        """Encodes one picture and reads the encoder's own reconstruction; see `Codec.code`.

        The files that the encoder reads and writes are in a folder of their own, removed whatever happens.
        """
        self.check(rgb, level)
        check_multiple(rgb, 8, self.name)
        for path, what in ((self.encoder, "encoder TAppEncoderStatic"), (self.config, "configuration file")):
            if not path.is_file():
                raise CodecError(f"hm: no {what} at {path}; build HM and give both by --encoder and --config")
        height, width = rgb.shape[:2]
        try:
            with tempfile.TemporaryDirectory(prefix="sqe-hm-") as name:
                folder = Path(name)
                # planar: all of Y, then Cb, then Cr
                (folder / "in.yuv").write_bytes(np.moveaxis(rgb_to_ycbcr(rgb), 2, 0).tobytes())
                self._run(folder, hm_arguments(self.config, folder, width, height, level))
                coded, rec = _read(folder / "out.bin"), _read(folder / "rec.yuv")
        except OSError as error:
            raise CodecError(f"hm: cannot use files in {tempfile.gettempdir()} ({error.strerror})") from None
        if len(rec) != rgb.size:
            raise CodecError(f"hm: {rgb.size} bytes of reconstruction expected, got {len(rec)}; is it 8-bit 4:4:4?")
        planes = np.frombuffer(rec, np.uint8).reshape(3, height, width)
        return Coded(ycbcr_to_rgb(np.moveaxis(planes, 0, 2)), len(coded))

    def _run(self, folder: Path, arguments: list[str]) -> None:
        log = folder / "log.txt"
        with log.open("wb") as file:
            try:
                # in a session of its own, so that whatever it starts in turn can be stopped with it
                child = subprocess.Popen(
                    [str(self.encoder.resolve()), *arguments],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise CodecError(f"hm: {self.encoder} cannot be run ({error.strerror})") from None
            try:
                exit_code = child.wait(self.timeout_s)
            except subprocess.TimeoutExpired:
                limit = f"{self.timeout_s:g} s"
                raise CodecError(
                    f"hm: {self.encoder} took longer than {limit} and was stopped; raise timeout_s"
                ) from None
            finally:  # also on Ctrl-C
                if child.poll() is None:
                    _stop(child)
        if exit_code:
            lines = log.read_text(errors="replace").strip().splitlines()
            last = lines[-1].strip() if lines else "it said nothing"
            raise CodecError(f"hm: {self.encoder} failed with exit code {exit_code}: {last}")


def hm_arguments(config: Path, folder: Path, width: int, height: int, qp: int) -> list[str]:
    """Arguments of `TAppEncoderStatic` for one 8-bit 4:4:4 intra picture: in.yuv -> out.bin, rec.yuv in `folder`."""
    files = {"-c": config.resolve(), "-i": folder / "in.yuv", "-b": folder / "out.bin", "-o": folder / "rec.yuv"}
    numbers = {"-wdt": width, "-hgt": height, "-fr": 25, "-f": 1, "-q": qp}
    return [
        *(str(word) for option in (*files.items(), *numbers.items()) for word in option),
        "--InputChromaFormat=444",
        "--ChromaFormatIDC=444",
        "--InputBitDepth=8",
        "--InternalBitDepth=8",
        "--OutputBitDepth=8",
        "--SEIDecodedPictureHash=0",
        "--Level=6.2",
        "--ConformanceWindowMode=0",
    ]


def _stop(child: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CodecError(f"hm: the encoder ended well but wrote no {path.name}") from None
