"""SubjectiveQE: make compressed pictures look good again.

Importing this package loads neither torch, onnxruntime nor av; what needs them imports them when it runs.
"""

from __future__ import annotations

__version__ = "0.1.0"
