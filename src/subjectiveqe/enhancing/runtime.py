"""The engines a network runs in: ONNX Runtime, OpenVINO, PyTorch; each imported only when it is used."""

from __future__ import annotations

import functools
import importlib.util
import io
import threading
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from ..dial import DEFAULT_STRENGTH, turn
from ..errors import ConfigError, ModelError, unknown
from ..files import sha256_of
from ..machine import cpu_info
from ..processes import ForkedLock, is_forked_from, uses
from ..sessions import FATAL, ONNX_FAILED, WARNING, onnx_session
from .network import DEFAULT_BYTES_PX, Floats, Network, network_of_onnx, place_of_dial, unreadable
from .openvino_engine import open_openvino

MODELS = {"fast": "sqe-fast.onnx", "fast-int8": "sqe-fast-int8.onnx", "best": "sqe-best.onnx"}
"""The models that come with the package, and their files. In 8-bit integers the dial is fixed at `DEFAULT_STRENGTH`."""

TORCH_SUFFIXES = frozenset({".safetensors", ".pt", ".pth"})


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
        raise unknown("runtime", runtime, ("auto", *_OPENERS))
    model = _model_file(model)
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


def checksum(model: Path) -> str:
    """SHA-256 of a model file, or of what a name of `MODELS` stands for, in hexadecimal."""
    return sha256_of(_model_file(model))


def _model_file(model: Path) -> Path:
    is_bundled = str(model) in MODELS and not model.is_file()
    return Path(__file__).parents[1] / "assets" / MODELS[str(model)] if is_bundled else model


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
    if runtime == "openvino" and is_forked_from("openvino"):
        return "onnxruntime"
    if runtime != "auto":
        return runtime
    if of_torch:
        return "torch"
    if importlib.util.find_spec("openvino") is None or is_forked_from("openvino") or gpu_providers():
        return "onnxruntime"
    return "openvino"


def gpu_providers() -> list[str]:
    """ONNX Runtime's ways to a GPU that work on this machine, the fastest first; those that "auto" takes.

    The first call of a process tries them, as slow as a start on a GPU is, where `compiled_gpu_providers` has any. None
    works in a process forked from one that has tried: CUDA cannot be taken along.
    """
    return [] if is_forked_from(_GPU) else [name for name in compiled_gpu_providers() if _computes(name)]


def compiled_gpu_providers() -> list[str]:
    """Those of `GPU_PROVIDERS` that ONNX Runtime was built for, whatever this machine has for them."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
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

_GPU = "GPU"
"""What `processes.uses` knows all of them by."""

_TRYING = ForkedLock()
"""Held while standard output, which all threads share, is turned away."""

_FLOAT = b"\x12\x16\n\x14\x08\x01\x12\x10" + 4 * b"\n\x02\x08\x01"
_SQUARE = (
    b'\x08\x08:P\n\x11\n\x01x\n\x01x\x12\x01y"\x04Conv:\x00\x12\x01c'
    b"Z\x1b\n\x01x" + _FLOAT + b"b\x1b\n\x01y" + _FLOAT + b"B\x04\n\x00\x10\r"
)
"""An ONNX file, y = Conv(x, x) of float32 (1, 1, 1, 1); the package that makes such files does not come with ours."""


@functools.cache
def _computes(provider: str) -> bool:
    """Whether a provider runs a convolution, which takes the libraries, the driver and a card that the build knows.

    A session alone proves little: where a library is missing ONNX Runtime makes one for the CPU, and what lacks cuDNN
    or code for this card may fail only when it runs.
    """
    import onnxruntime as ort

    uses(_GPU)
    with _TRYING, redirect_stdout(io.StringIO()):
        ort.set_default_logger_severity(FATAL)  # a library is missed before there is a session
        try:
            if provider == "CUDAExecutionProvider" and hasattr(ort, "preload_dlls"):  # since 1.21
                ort.preload_dlls()  # finds CUDA and cuDNN where pip puts them, and prints what it does not find
            session = onnx_session(_SQUARE, [provider])
            three = np.full((1, 1, 1, 1), 3, np.float32)
            return provider in session.get_providers() and session.run(None, {"x": three})[0].item() == 9
        except ONNX_FAILED:
            return False
        finally:
            ort.set_default_logger_severity(WARNING)


_OF_ONE_THREAD = "DmlExecutionProvider"
"""Its sessions "do not support multi-threaded calls to Run" (ONNX Runtime's documentation of DirectML)."""


def _open_onnxruntime(path: Path, strength: float) -> Network:
    providers = [*gpu_providers(), "CPUExecutionProvider"]
    try:
        session = onnx_session(turn(path.read_bytes(), strength), providers)
    except ONNX_FAILED as error:
        raise unreadable(path, error) from None
    inputs = {value.name: value.shape for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    turns = threading.Lock() if _OF_ONE_THREAD in session.get_providers() else nullcontext()

    def compute(output: str, feeds: dict[str, Floats]) -> Floats:
        with turns:
            values: Floats = session.run([output], feeds)[0]
        return values

    return network_of_onnx(path, compute, strength, inputs, outputs, dict(session.get_modelmeta().custom_metadata_map))


def _open_torch(path: Path, strength: float) -> Network:
    import torch

    from ..nets.checkpoint import load_net

    uses("torch")
    if is_forked_from("torch"):
        torch.set_num_threads(1)  # a forked process would wait for the threads that its parent has begun
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
    return Network(
        run, estimator, net.num_coarseness, int(net.receptive_px), int(net.stride_px), DEFAULT_BYTES_PX, metadata
    )


_OPENERS: dict[str, tuple[str, Callable[[Path, float], Network]]] = {
    "onnxruntime": ("onnxruntime", _open_onnxruntime),
    "openvino": ("openvino", open_openvino),
    "torch": ("torch", _open_torch),
}
