"""What `sqe doctor` says of GPUs; of the rest, see test_cli.py."""

from __future__ import annotations

import pytest

from subjectiveqe import doctor

CUDA, ROCM, MIGRAPHX = (f"{name}ExecutionProvider" for name in ("CUDA", "ROCM", "MIGraphX"))
IDLE = "is compiled in but does not load; the card, its driver or its libraries are missing"


@pytest.mark.parametrize(
    ("compiled", "working", "value", "remedy"),
    [
        ([CUDA], [CUDA], "CUDA", ""),
        ([CUDA], [], f"CUDA {IDLE}", 'pip install "onnxruntime-gpu[cuda,cudnn]"'),
        ([MIGRAPHX], [], f"MIGraphX {IDLE}", ""),
        ([ROCM, MIGRAPHX], [ROCM], f"ROCM; MIGraphX {IDLE}", ""),
    ],
)
def test_a_gpu_that_does_not_load_is_told_from_one_that_works(monkeypatch, compiled, working, value, remedy):
    monkeypatch.setattr(doctor, "compiled_gpu_providers", lambda: compiled)
    monkeypatch.setattr(doctor, "gpu_providers", lambda: working)
    gpu = next(finding for finding in doctor.examine(measure=False) if finding.name == "GPU")
    assert (gpu.value, gpu.remedy) == (value, remedy)


@pytest.mark.parametrize(
    ("system", "package"),
    [("Linux", '"onnxruntime-gpu[cuda,cudnn]"'), ("Windows", "onnxruntime-directml")],
)
def test_a_build_for_cpus_is_told_what_to_put_in_its_place(monkeypatch, system, package):
    monkeypatch.setattr(doctor, "compiled_gpu_providers", list)
    monkeypatch.setattr(doctor, "gpu_providers", list)
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    gpu = next(finding for finding in doctor.examine(measure=False) if finding.name == "GPU")
    assert gpu.value == "none that ONNX Runtime can use"
    assert gpu.remedy == f"pip uninstall onnxruntime && pip install {package}"
