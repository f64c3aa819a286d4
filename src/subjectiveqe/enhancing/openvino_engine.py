"""OpenVINO, and what it takes for it to live with threads, forks, signals and locales."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from ..dial import turn
from ..errors import ModelError
from ..files import cache_folder
from ..machine import cpu_count
from ..processes import keep_after_fork, submit, uses
from .network import Floats, Network, network_of_onnx, unreadable

COMPILED_BYTES = 64 * 1024**2
"""The most that a start leaves of compiled networks; `fast` takes 8 MB, `best` 25, at each place of the dial."""

_MAKING_CORE = threading.Lock()

_SETTING_LOCALE = threading.Lock()
"""Held while OpenVINO reads or compiles: it sets the locale of the process to C and back, and two that do so at once
may leave it there, so that no text file with an umlaut could be read any more."""

_compiling: set[Future[Any]] = set()
"""What is being compiled. A process forked meanwhile would wait for it for ever, so forking waits instead."""


def _before_fork() -> None:
    wait(_compiling.copy())
    _SETTING_LOCALE.acquire()  # behind it: who compiles needs it


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_SETTING_LOCALE.release, after_in_child=_SETTING_LOCALE.release
    )


def openvino_core() -> Any:
    """The one core of this process, which lives as long as it does; any thread may ask for it."""
    with _MAKING_CORE:
        return _make_openvino_core()


_CONVERTER = "openvino.tools.ovc"


def _openvino() -> Any:
    """The package without two others that it imports where they are there.

    One reports to its makers. The other makes models of PyTorch's, say, and takes more than half of the 0.25 s of
    processor time; it comes when somebody else in this process asks for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if "openvino" in sys.modules:
        import openvino

        return openvino
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        sys.modules.pop(_CONVERTER, None)
    vars(openvino).setdefault("__getattr__", _import_converter)
    return openvino


def _import_converter(name: str) -> Any:
    """The attribute of the package that its converter would have set."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute '{name}'")
    return importlib.import_module(_CONVERTER).convert_model


@functools.cache
def _make_openvino_core() -> Any:
    """The core, made by the first call, and what else in OpenVINO has to be made by one thread.

    Its CPU plugin gives the thread that loads it a signal stack of its own and frees it with itself. Were that another
    thread's doing, the next signal, Ctrl-C say, would end the process by a segmentation fault.

    Its tables of NumPy's types are made when they are first looked into, holding a lock of C++'s while Python may give
    the turn to another thread: two that look at once wait for each other for ever. So they are looked into here.
    """
    ov = _openvino()
    ov.Tensor(np.zeros(1, np.float32), shared_memory=True).data  # noqa: B018
    uses("openvino")
    core = ov.Core()
    keep_after_fork(core)
    return core


def open_openvino(path: Path, strength: float) -> Network:
    """Loads an ONNX file; see `runtime.open_network`. It is compiled while the caller goes on."""
    ov, core = _openvino(), openvino_core()
    # bfloat16 doubles the speed where the CPU has it; trained networks then differ by 0.6 of an 8-bit level at most. An
    # estimate comes from coefficients that quantising left next to nothing of, and bfloat16 would drown them in noise.
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = {"out": "bf16" if has_bfloat16 else "f32"}
    settings = {"INFERENCE_NUM_THREADS": cpu_count(), "PERFORMANCE_HINT": "LATENCY"}
    if (kept := _compiled_folder()) is not None:
        settings["CACHE_DIR"] = str(kept)
    try:
        content = turn(path.read_bytes(), strength)
        with _SETTING_LOCALE:
            loaded = core.read_model(content)
        info = loaded.get_rt_info(["framework"]).value if loaded.has_rt_info(["framework"]) else {}
        metadata = {str(key): str(getattr(value, "value", value)) for key, value in info.items()}
        inputs = {
            value.any_name: [side.get_length() if side.is_static else None for side in value.partial_shape]
            for value in loaded.inputs
        }
        outputs = {
            value.any_name: ov.Model([value.node], loaded.get_parameters(), value.any_name) for value in loaded.outputs
        }
    except Exception as error:  # openvino raises plain RuntimeError and its own classes alike
        refused = unreadable(path, _without_places(error))
        raise ModelError(f'{refused}; copy it anew or make it by "sqe export"') from None

    def compile_part(name: str) -> Any:
        precision = {"INFERENCE_PRECISION_HINT": precisions.get(name, "f32")}
        with _SETTING_LOCALE:
            return core.compile_model(outputs[name], "CPU", settings | precision)

    compiling = ThreadPoolExecutor(1)  # a picture can be read meanwhile; an estimate is wanted first
    parts = {name: submit(compiling, compile_part, name) for name in sorted(outputs)}
    for part in parts.values():
        _compiling.add(part)
        part.add_done_callback(_compiling.discard)
    compiling.shutdown(wait=False)
    # Requests keep their memory, but are not for two threads at once.
    idle: dict[str, SimpleQueue[Any]] = {name: SimpleQueue() for name in parts}

    def compute(output: str, feeds: dict[str, Floats]) -> Floats:
        try:
            request = idle[output].get_nowait()
        except Empty:
            request = parts[output].result().create_infer_request()
        values: Floats = request.infer(feeds, share_inputs=True)[output]
        idle[output].put(request)
        return values

    network = network_of_onnx(path, compute, strength, inputs, list(outputs), metadata)
    # Without bfloat16 it takes twice the memory, an int8 network's too, and works as fast on tiles of half the size.
    return network if has_bfloat16 else replace(network, bytes_px=2 * network.bytes_px)


def _without_places(error: Exception) -> Exception:
    """An error of OpenVINO's less the lines that say where in its source it arose; those end with colons."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = "\n".join(line for line in lines if not line.endswith(":"))
    return RuntimeError(said) if said.strip() else error


def _compiled_folder() -> Path | None:
    """Where OpenVINO keeps what it has compiled and finds it at the next start; None where nothing can be kept.

    It takes damaged files and full disks in its stride, and compiles anew. The oldest files make room here.
    """
    try:
        folder = cache_folder() / "openvino"
        folder.mkdir(parents=True, exist_ok=True)
        stats = {path: path.stat() for path in folder.iterdir()}
        room = COMPILED_BYTES
        for path in sorted(stats, key=lambda path: stats[path].st_mtime, reverse=True):
            room -= stats[path].st_size
            if room < 0:
                path.unlink()
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None
