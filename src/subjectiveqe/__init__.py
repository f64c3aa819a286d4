"""SubjectiveQE: make compressed pictures look good again.

`Enhancer(model=None, runtime="auto", strength=1.0)(image)` enhances a picture; everything else is in the modules.

Importing this package loads neither torch, onnxruntime nor av; what needs them imports them when it runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .enhancing.enhancer import Enhancer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports to its makers from its import on

__version__ = "0.1.0"
__all__ = ["Enhancer", "__version__"]


if not TYPE_CHECKING:  # to a type checker it would promise any name

    def __getattr__(name: str) -> type[Enhancer]:
        if name == "Enhancer":
            from .enhancing.enhancer import Enhancer

            return Enhancer
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
