"""Sessions of ONNX Runtime, all of them opened here and alike; it is imported when the first one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .machine import cpu_count

if TYPE_CHECKING:
    import onnxruntime

FATAL, WARNING = 4, 2
"""Of ONNX Runtime's severities; it begins with the latter and does not tell which is set."""

ONNX_FAILED = Exception
"""What opening or running a session may fail by: ONNX Runtime has a class per cause and no common root of its own."""

_LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "all": "ORT_ENABLE_ALL"}


def onnx_session(
    model: bytes | Path,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    *,
    threads: int | None = None,
    optimization: Literal["none", "basic", "all"] = "all",
    optimized: Path | None = None,
    initializers: Mapping[str, NDArray[np.float32]] | None = None,
) -> onnxruntime.InferenceSession:
    """Opens an ONNX model; what goes wrong arrives as an exception, and nothing on stderr beside it.

    Args:
        model: content of an ONNX file, or its path.
        providers: where it may run, the first that can first; a single one is never replaced by the CPU.
        threads: those that work on one operator; as many as this process has cores if not given.
        optimization: how far the graph is folded and fused.
        optimized: where to write the graph after that.
        initializers: weights that the file names and does not hold.
    Raises:
        ONNX_FAILED: a file that is missing or no model, or a provider that does not work; any class.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_count()  # it would count, and pin threads to, all of the machine's
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it plans a second arena beside the first: 0.93 GB against 0.57 GB a tile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # no gain here, and others lose their core
    options.log_severity_level = FATAL
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[optimization])
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if initializers:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in initializers.values()]
        options.add_external_initializers(list(initializers), values)
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=list(providers),
        enable_fallback=len(providers) > 1,  # it prints, and tries the CPU, which a single one is or shall not be
    )
