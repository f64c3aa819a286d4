"""The engines a network runs in: ONNX Runtime, OpenVINO, PyTorch; each imported only when it is used."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs.coarseness import TOLD_LESS, Less, read_less, told
from ..dial import DEFAULT_STRENGTH, TRAINED_AT, turn
from ..errors import ConfigError, ModelError, first_line
from ..files import cache_folder, sha256_of
from ..machine import cpu_count, cpu_info

Floats = NDArray[np.float32]

MODELS = {"fast": "sqe-fast.onnx", "fast-int8": "sqe-fast-int8.onnx", "best": "sqe-best.onnx"}
"""The models that come with the package, and their files. In 8-bit integers the dial is fixed at `DEFAULT_STRENGTH`."""

COMPILED_BYTES = 64 * 1024**2
"""The most that a start leaves of compiled networks; `fast` takes 8 MB, `best` 25, at each place of the dial."""

TORCH_SUFFIXES = frozenset({".safetensors", ".pt", ".pth"})
_DEFAULT_BYTES_PX = 2048
"""Working memory per pixel of a tile where the file does not say: what the seed's network takes in PyTorch."""


@dataclass(frozen=True)
class Network:
    """A loaded network and what tiling has to know of it.

    Attributes:
        run: (float32 (N, 3, H, W) in [0, 1], coarseness float32 (K,)) -> float32 of the same shape as the first, not
            clamped; several threads may call it at a time.
        estimate: float32 (M, 3, H, W), patches of a picture -> float32 (1, 2, K): coarseness, and log of the scale of
            its error, or (M, 2, K), those of each patch; None for a network that is not told the coarseness.
        reach_px: input pixels farther than this from an output pixel change it by less than can be seen in 8 bits.
        stride_px: shifts by multiples of this shift the output alike.
        bytes_px: working memory per pixel of a tile.
        metadata: what the file says of itself.
    """

    run: Callable[[Floats, Floats | None], Floats]
    estimate: Callable[[Floats], Floats] | None
    reach_px: int
    stride_px: int
    bytes_px: int
    metadata: Mapping[str, str]


def open_network(model: Path, runtime: str, strength: float = DEFAULT_STRENGTH) -> Network:
    """Loads a network into an engine.

    Args:
        model: .onnx, .safetensors, .pt or .pth, or a name of `MODELS`.
        runtime: "onnxruntime", "openvino", "torch", or "auto", see `choose_runtime`.
        strength: the dial, 0..1; networks without one ignore it.
    Raises:
        ConfigError: an engine that is unknown, not installed or not for this kind of file.
        ModelError: a file that is missing, damaged or of another kind.
    """
    if runtime not in ("auto", *_OPENERS):
        raise ConfigError(f'unknown runtime "{runtime}"; known: auto, {", ".join(_OPENERS)}')
    with _model_file(model) as path:
        return _open(path, runtime, strength)


def checksum(model: Path) -> str:
    """SHA-256 of a model file, or of what a name of `MODELS` stands for, in hexadecimal."""
    with _model_file(model) as path:
        return sha256_of(path)


@contextmanager
def _model_file(model: Path) -> Iterator[Path]:
    if str(model) in MODELS and not model.is_file():
        with as_file(files("subjectiveqe") / "assets" / MODELS[str(model)]) as path:
            yield path
    else:
        yield model


def _open(model: Path, runtime: str, strength: float) -> Network:
    if not model.is_file():
        known = f"{', '.join(MODELS)}, or a .onnx, .safetensors or .pt file"
        raise ModelError(f"{model}: no such model; give {known}")
    of_torch = model.suffix.lower() in TORCH_SUFFIXES
    runtime = choose_runtime(of_torch, runtime)
    if of_torch != (runtime == "torch"):
        takes = "a .safetensors or .pt file" if runtime == "torch" else 'an ONNX file; make one by "sqe export"'
        raise ConfigError(f'{model}: runtime "{runtime}" takes {takes}')
    package, opener = _OPENERS[runtime]
    if importlib.util.find_spec(package) is None:
        extra = "train" if runtime == "torch" else runtime
        raise ConfigError(f'runtime "{runtime}" is not installed; run: pip install "subjectiveqe[{extra}]"')
    return opener(model, strength)


def unreadable(path: Path, error: Exception) -> ModelError:
    """What an engine's refusal of an ONNX file is to people."""
    return ModelError(f"{path}: not a readable ONNX model ({first_line(error)})")


def choose_model(runtime: str, strength: float) -> str:
    """The fastest of `MODELS` here: `fast`, in integers where there is no GPU and the dial is not turned.

    On CPUs with AMX OpenVINO is faster still by `fast` in bfloat16.
    """
    is_for_cpu = runtime == "openvino" or not gpu_providers()
    has_amx = choose_runtime(False, runtime) == "openvino" and "amx_bf16" in cpu_info("flags").split()
    return "fast-int8" if is_for_cpu and strength == DEFAULT_STRENGTH and not has_amx else "fast"


def choose_runtime(of_torch: bool, runtime: str = "auto") -> str:
    """The engine that a name stands for, which is itself but for two.

    Args:
        of_torch: the model is a file of PyTorch's, which no other engine reads.
        runtime: "auto", or the name of an engine.
    Returns:
        For "auto" and ONNX files ONNX Runtime where it has a GPU, else OpenVINO where it is installed (it is faster on
        CPUs, twice so with bfloat16 instructions), else ONNX Runtime. ONNX Runtime for OpenVINO, too, in a process
        forked from one that has used it: there its threads are gone, and it would compile for ever.
    """
    if runtime == "openvino" and _is_forked_from_openvino():
        return "onnxruntime"
    if runtime != "auto":
        return runtime
    if of_torch:
        return "torch"
    if importlib.util.find_spec("openvino") is None or _is_forked_from_openvino() or gpu_providers():
        return "onnxruntime"
    return "openvino"


def gpu_providers() -> list[str]:
    """ONNX Runtime's ways to a GPU on this machine, the fastest first; those that "auto" takes."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    return [name for name in GPU_PROVIDERS if name in available]


GPU_PROVIDERS = (
    "CUDAExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
    "DmlExecutionProvider",
)
"""CoreML is not among them: every Mac has it, networks of ours have not been tried in it, and it may compute in half
precision and compile anew for each size of a tile."""

_OF_ONE_THREAD = "DmlExecutionProvider"
"""Its sessions "do not support multi-threaded calls to Run" (ONNX Runtime's documentation of DirectML)."""


def _open_onnxruntime(path: Path, strength: float) -> Network:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_count()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it plans a second arena beside the first: 0.93 GB against 0.57 GB a tile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # no gain here, and others lose their core
    options.log_severity_level = 4  # what goes wrong arrives as an exception
    providers = [*gpu_providers(), "CPUExecutionProvider"]
    try:
        session = ort.InferenceSession(turn(path.read_bytes(), strength), options, providers=providers)
    except Exception as error:  # onnxruntime has a class per cause and no common root of its own
        raise unreadable(path, error) from None
    inputs = {value.name: value.shape for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    turns = threading.Lock() if _OF_ONE_THREAD in session.get_providers() else nullcontext()

    def compute(output: str, feeds: dict[str, Floats]) -> Floats:
        with turns:
            values: Floats = session.run([output], feeds)[0]
        return values

    return _of_onnx(path, compute, strength, inputs, outputs, dict(session.get_modelmeta().custom_metadata_map))


def _openvino() -> Any:
    """The package. When imported it reports to its makers through another one, unless that one cannot be imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


_MAKING_CORE = threading.Lock()
_core_processes: list[int] = []
"""The process that made the core, if one did; a process forked from it finds another's number here."""

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


def _is_forked_from_openvino() -> bool:
    return bool(_core_processes) and os.getpid() not in _core_processes


def openvino_core() -> Any:
    """The one core of this process, which lives as long as it does; any thread may ask for it."""
    with _MAKING_CORE:
        return _make_openvino_core()


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
    _core_processes.append(os.getpid())
    return ov.Core()


def _open_openvino(path: Path, strength: float) -> Network:
    ov, core = _openvino(), openvino_core()
    # bfloat16 doubles the speed where the CPU has it; trained networks then differ by 0.6 of an 8-bit level at most. An
    # estimate comes from coefficients that quantising left next to nothing of, and bfloat16 would drown them in noise.
    precisions = {"out": "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"}
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
        raise unreadable(path, error) from None

    def compile_part(name: str) -> Any:
        precision = {"INFERENCE_PRECISION_HINT": precisions.get(name, "f32")}
        with _SETTING_LOCALE:
            return core.compile_model(outputs[name], "CPU", settings | precision)

    compiling = ThreadPoolExecutor(1)  # a picture can be read meanwhile; an estimate is wanted first
    parts = {name: compiling.submit(compile_part, name) for name in sorted(outputs)}
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

    return _of_onnx(path, compute, strength, inputs, list(outputs), metadata)


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


def _open_torch(path: Path, strength: float) -> Network:
    import torch

    from ..nets.checkpoint import load_net

    loaded, metadata = load_net(path)
    net: Any = loaded.requires_grad_(False)
    place = place_of_dial(path, metadata, strength)

    def run(lq: Floats, coarseness: Floats | None) -> Floats:
        with torch.inference_mode():
            extra = [torch.full((len(lq),), place)] if net.uses_strength else []
            if net.num_coarseness:
                assert coarseness is not None
                extra.append(torch.from_numpy(np.tile(coarseness, (len(lq), 1))))
            out: Floats = net(torch.from_numpy(lq), *extra).numpy()
            return out

    def estimate(lq: Floats) -> Floats:
        with torch.inference_mode():
            out: Floats = net.estimate(torch.from_numpy(lq), of_one_picture=True).numpy()
            return out

    estimator = estimate if net.num_coarseness else None
    return Network(run, estimator, int(net.receptive_px), int(net.stride_px), _DEFAULT_BYTES_PX, metadata)


_OPENERS: dict[str, tuple[str, Callable[[Path, float], Network]]] = {
    "onnxruntime": ("onnxruntime", _open_onnxruntime),
    "openvino": ("openvino", _open_openvino),
    "torch": ("torch", _open_torch),
}


def _check_kind(
    path: Path, inputs: Mapping[str, Sequence[Any]], outputs: list[str], metadata: Mapping[str, str]
) -> None:
    kinds = (
        ({"lq": 4}, ["out"]),
        ({"lq": 4, "strength": 1}, ["out"]),
        ({"lq": 4, "coarseness": 2, "patches": 4}, ["out", "estimate"]),
        ({"lq": 4, "strength": 1, "coarseness": 2, "patches": 4}, ["out", "estimate"]),
    )
    if ({name: len(shape) for name, shape in inputs.items()}, outputs) not in kinds:
        found = f"inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
        raise ModelError(
            f"{path}: another kind of model: expected inputs lq, strength and output out, found {found}; "
            'export the checkpoint by "sqe export"'
        )
    missing = [key for key in ("receptive_px", "stride_px") if not metadata.get(key, "").isdecimal()]
    if missing:
        raise ModelError(f'{path}: the metadata lack {" and ".join(missing)}; export the checkpoint by "sqe export"')


def place_of_dial(path: Path, metadata: Mapping[str, str], strength: float) -> float:
    """Where the dial is for the network's own input: where it was trained, if that was at one place."""
    try:
        return float(metadata.get(TRAINED_AT, strength))
    except ValueError:
        raise ModelError(f"{path}: the metadata say {TRAINED_AT} {metadata[TRAINED_AT]}, expected a number") from None


def told_less(path: Path, metadata: Mapping[str, str]) -> Less:
    """How much less than the truth to tell the network, by what its file says; nothing where it does not."""
    try:
        return read_less(metadata.get(TOLD_LESS, "").split())
    except ConfigError:
        raise ModelError(
            f"{path}: the metadata say {TOLD_LESS} {metadata[TOLD_LESS]}, expected points family:coarseness:less"
        ) from None


_NOTHING = np.zeros((1, 3, 1, 1), np.float32)
"""For the half of a network whose output is not wanted; an engine computes both."""


def _of_onnx(
    path: Path,
    compute: Callable[[str, dict[str, Floats]], Floats],
    strength: float,
    inputs: Mapping[str, Sequence[Any]],
    outputs: list[str],
    metadata: Mapping[str, str],
) -> Network:
    """What the engines for ONNX files share; `compute` gives one output of the network for all its inputs."""
    _check_kind(path, inputs, outputs, metadata)
    place = place_of_dial(path, metadata, strength)
    less = told_less(path, metadata)

    def run(lq: Floats, coarseness: Floats | None) -> Floats:
        feeds = {"lq": lq}
        if "strength" in inputs:
            feeds["strength"] = np.full(len(lq), place, np.float32)
        if "coarseness" in inputs:
            assert coarseness is not None
            feeds |= {"coarseness": np.tile(told(coarseness, less, place), (len(lq), 1)), "patches": _NOTHING}
        return compute("out", feeds)

    def estimate(patches: Floats) -> Floats:
        rest = {
            name: np.zeros((1, *shape[1:]), np.float32)
            for name, shape in inputs.items()
            if name in ("strength", "coarseness")
        }
        return compute("estimate", {"lq": _NOTHING, "patches": patches, **rest})

    stride_px = int(metadata["stride_px"])
    if stride_px < 1:
        raise ModelError(f"{path}: the metadata say stride_px {stride_px}, expected 1 or more")
    bytes_px = metadata.get("bytes_px", "")
    return Network(
        run,
        estimate if "patches" in inputs else None,
        int(reach_px) if (reach_px := metadata.get("reach_px", "")).isdecimal() else int(metadata["receptive_px"]),
        stride_px,
        int(bytes_px) if bytes_px.isdecimal() else _DEFAULT_BYTES_PX,
        metadata,
    )
