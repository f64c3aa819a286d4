"""What this machine has to run networks with, what is fastest here, and what is missing."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import __version__
from .dial import DEFAULT_STRENGTH
from .enhancing.enhancer import Enhancer
from .enhancing.openvino_engine import openvino_core
from .enhancing.runtime import choose_model, choose_runtime, compiled_gpu_providers, gpu_providers
from .errors import SubjectiveQEError, first_line
from .machine import cpu_count, package_version

_MEASURED_PX = 512
_EXTRAS = {"onnxruntime": "", "openvino": "[openvino]", "torch": "[train]"}
_FOR_NVIDIA = '"onnxruntime-gpu[cuda,cudnn]"'
"""With the libraries that it loads; it does without them where CUDA and cuDNN are installed for the whole machine."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        value: what was found.
        remedy: the command that adds what is missing; empty where nothing is.
    """

    name: str
    value: str
    remedy: str = ""


def examine(measure: bool = True, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Looks at the machine and times the bundled model in every engine that is installed.

    Args:
        measure: time the engines; takes a few seconds.
        progress: called with the numbers of engines timed and of all.
    Returns:
        What was found, in the order to be read.
    """
    findings = [
        Finding("subjectiveqe", __version__),
        Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        Finding("processor", f"{cpu_count()} cores to use{', ' + flags if (flags := _instructions()) else ''}"),
    ]
    for number, (name, extra) in enumerate(_EXTRAS.items()):
        if progress is not None:
            progress(number, len(_EXTRAS))
        if importlib.util.find_spec(name) is None:
            findings.append(Finding(name, "not installed", f'pip install "subjectiveqe{extra}"'))
        else:
            speed = f", {_speed(name)}" if measure and name != "torch" else ""
            findings.append(Finding(name, f"{package_version(name)}{speed}"))
    findings.append(_gpu())
    findings.append(Finding("--runtime auto", choose_runtime(of_torch=False)))
    findings.append(Finding("--model", choose_model("auto", DEFAULT_STRENGTH)))
    return findings


def _speed(runtime: str) -> str:
    """Megapixels a second of the bundled model, the best of three runs after one to warm up."""
    image = np.random.default_rng(0).integers(0, 256, (_MEASURED_PX, _MEASURED_PX, 3), np.uint8)
    try:
        enhancer = Enhancer(runtime=runtime, tile_px=0)
        seconds = []
        for _ in range(4):
            start_s = time.perf_counter()
            enhancer(image)
            seconds.append(time.perf_counter() - start_s)
    except SubjectiveQEError as error:
        return f"does not work ({first_line(error)})"
    return f"{image.shape[0] * image.shape[1] / 1e6 / min(seconds[1:]):.2f} megapixels a second with the bundled model"


def _instructions() -> str:
    """What decides about speed, where OpenVINO is there to say it."""
    if importlib.util.find_spec("openvino") is None:
        return ""
    capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16 instructions" if "BF16" in capabilities else "no bfloat16 instructions"


def _gpu() -> Finding:
    """What ONNX Runtime was built for and what of it works here.

    No remedy on a Mac, whose CoreML "auto" does not take (`runtime.GPU_PROVIDERS`).
    """
    compiled = [_short(name) for name in compiled_gpu_providers()]
    working = [_short(name) for name in gpu_providers()]
    if not compiled:
        wanted = {"Windows": "onnxruntime-directml", "Linux": _FOR_NVIDIA}.get(platform.system())
        remedy = f"pip uninstall onnxruntime && pip install {wanted}" if wanted else ""
        return Finding("GPU", "none that ONNX Runtime can use", remedy)
    failing = [
        f"{name} is compiled in but does not load; the card, its driver or its libraries are missing"
        for name in compiled
        if name not in working
    ]
    remedy = f"pip install {_FOR_NVIDIA}" if "CUDA" in compiled and "CUDA" not in working else ""
    return Finding("GPU", "; ".join([*working, *failing]), remedy)


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")
