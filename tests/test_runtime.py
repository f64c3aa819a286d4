"""What engines there are and which of them work; what networks give in them is in test_enhance.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from subjectiveqe import processes, sessions
from subjectiveqe.enhancing import runtime as runtimes
from subjectiveqe.enhancing.enhancer import Enhancer
from subjectiveqe.errors import ModelError
from subjectiveqe.sessions import ONNX_FAILED, onnx_session

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def cuda_build(monkeypatch):
    """ONNX Runtime as built for CUDA: a function that says what its sessions do, and gives what was asked of them."""
    ort = pytest.importorskip("onnxruntime")
    asked = []

    def be(loads=True, opens=True, runs=True):
        class Session:
            def __init__(self, *_, providers, **__):
                asked.append(providers)
                if not opens:
                    raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

            def get_providers(self):
                return [CUDA, CPU] if loads else [CPU]

            def run(self, _, feeds):
                if not runs:
                    raise RuntimeError("no kernel image is available for execution on the device")
                return [feeds["x"] ** 2]

        def preload_dlls():
            asked.append("libraries")
            print("Failed to load libcublasLt.so.13")

        monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU])
        monkeypatch.setattr(ort, "preload_dlls", preload_dlls, raising=False)
        monkeypatch.setattr(ort, "InferenceSession", Session)
        monkeypatch.setattr(ort, "set_default_logger_severity", asked.append)
        return asked

    monkeypatch.setattr(processes, "_users", {})
    runtimes._computes.cache_clear()
    yield be
    runtimes._computes.cache_clear()


def test_a_gpu_that_works_is_taken_and_tried_once(cuda_build, capfd):
    asked = cuda_build()
    assert [runtimes.gpu_providers() for _ in range(3)] == [[CUDA]] * 3
    assert asked == [4, "libraries", [CUDA], 2]  # silent meanwhile; pip's libraries come before a session wants them
    assert runtimes.choose_runtime(of_torch=False) == "onnxruntime"
    assert runtimes.choose_model("auto", 1) == "fast"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("lacking", ["loads", "opens", "runs"])
def test_a_gpu_that_is_only_compiled_in_changes_nothing(cuda_build, monkeypatch, capfd, lacking):
    cuda_build(**{lacking: False})
    monkeypatch.setattr(runtimes, "cpu_info", lambda _: "avx2")
    assert (runtimes.compiled_gpu_providers(), runtimes.gpu_providers()) == ([CUDA], [])
    assert runtimes.choose_model("auto", 1) == "fast-int8"
    pytest.importorskip("openvino")
    assert runtimes.choose_runtime(of_torch=False) == "openvino"
    assert capfd.readouterr() == ("", "")


def test_a_forked_process_leaves_the_gpu_to_its_parent(cuda_build):
    cuda_build()
    assert runtimes.gpu_providers() == [CUDA]
    processes._users["GPU"] = -1  # as if noted by another process
    assert runtimes.gpu_providers() == []


def test_builds_for_cpus_try_nothing(monkeypatch):
    ort = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CoreMLExecutionProvider", CPU])
    monkeypatch.setattr(ort, "InferenceSession", None)
    assert runtimes.gpu_providers() == []


def test_what_is_tried_is_one_convolution():
    parser = pytest.importorskip("onnx.parser")
    text = """<ir_version: 8, opset_import: ["" : 13]>
        c (float[1,1,1,1] x) => (float[1,1,1,1] y) { y = Conv(x, x) }"""
    assert parser.parse_model(text).SerializeToString() == runtimes._SQUARE
    assert runtimes._computes.__wrapped__(CPU)


@pytest.mark.parametrize("content", [b"no model", b"", b"\x08\x08:\x7f"])
def test_openvino_does_not_tell_where_in_its_source_a_file_is_no_model(tmp_path, content):
    pytest.importorskip("openvino")
    (tmp_path / "text.onnx").write_bytes(content)
    with pytest.raises(
        ModelError, match=r'not a readable ONNX model \(\w.*\); copy it anew or make it by "sqe export"$'
    ) as caught:
        Enhancer(tmp_path / "text.onnx", "openvino")
    assert all(word not in str(caught.value) for word in ("\n", ".cpp", "Exception"))


def test_what_openvino_converts_models_by_comes_only_when_it_is_wanted():
    """It takes half of the start."""
    pytest.importorskip("openvino")
    code = """if True:
        import sys
        from subjectiveqe.enhancing.openvino_engine import openvino_core
        openvino_core()
        import openvino
        print("openvino.tools.ovc" in sys.modules, hasattr(openvino, "no_such_thing"))
        from openvino import convert_model
        print(openvino.convert_model is convert_model is sys.modules["openvino.tools.ovc"].convert_model)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "False False\nTrue\n")


@pytest.mark.parametrize(("asked", "threads"), [({}, 3), ({"threads": 1}, 1)])
def test_sessions_take_the_cores_that_this_process_has_and_let_go_of_them(monkeypatch, asked, threads):
    """ONNX Runtime counts those of the machine."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(sessions, "cpu_count", lambda: 3)
    options = onnx_session(runtimes._SQUARE, **asked).get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_mem_pattern


@pytest.mark.parametrize("providers", [[CPU], [CUDA]])
def test_what_a_session_fails_by_is_an_exception_alone(tmp_path, monkeypatch, capfd, providers):
    ort = pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("no model")
    for model in (b"no model", b"", tmp_path / "text.onnx", tmp_path / "none.onnx"):
        with pytest.raises(ONNX_FAILED):
            onnx_session(model, providers)
    made = []

    def fails(*_):
        made.append(1)
        raise RuntimeError("no device")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fails)
    with pytest.raises(RuntimeError, match="no device"):
        onnx_session(runtimes._SQUARE, providers)
    assert len(made) == 1
    assert capfd.readouterr() == ("", "")


def test_what_a_run_fails_by_is_an_exception_alone(capfd):
    onnx = pytest.importorskip("onnx")
    h, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = h.make_graph(
        [h.make_node("Reshape", ["x", "shape"], ["y"])],
        "reshape",
        [h.make_tensor_value_info("x", floats, ["n"])],
        [h.make_tensor_value_info("y", floats, [7])],
        [h.make_tensor("shape", onnx.TensorProto.INT64, [1], [7])],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    session = onnx_session(model.SerializeToString())
    with pytest.raises(ONNX_FAILED, match="Reshape"):
        session.run(None, {"x": [0.0] * 5})
    assert capfd.readouterr() == ("", "")


def test_all_sessions_are_opened_in_one_place():
    package = Path(sessions.__file__).parent
    opening = [
        path for path in package.rglob("*.py") if re.search(r"\bInferenceSession\b(?! *[:\]])", path.read_text("utf-8"))
    ]
    assert opening == [package / "sessions.py"]
