"""The metrics against scikit-image, PyTorch versions of the same networks, and numbers a hand can check."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from subjectiveqe import metrics, ssimulacra
from subjectiveqe.errors import ShapeError, SubjectiveQEError, WeightsError
from subjectiveqe.images import read_rgb
from subjectiveqe.metrics import (
    Original,
    blockiness,
    dists,
    grid_lines,
    lpips,
    lpips_vgg,
    ms_ssim,
    psnr,
    psnr_b,
    psnr_y,
    ssim,
    ssimulacra2,
)
from subjectiveqe.perceptual import make_perceptual
from subjectiveqe.samples import samples
from subjectiveqe.weights import list_weights, locate


def draw(height, width, seed=0):
    """A picture with slopes, edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = 128 + 80 * np.sin(x / 9 + seed)[..., None] * np.cos(y / 7)[..., None] + 20 * (x > width / 2)[..., None]
    return np.clip(base + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def worsen(image, seed=1):
    noise = np.random.default_rng(seed).normal(0, 15, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def posterize(image):
    """Eight levels per channel: a strong change that is the same on every machine."""
    return image // 32 * 32 + 16


def test_psnr_of_a_one_level_error():
    gt = np.full((8, 8, 3), 128, np.uint8)
    assert psnr(gt + 1, gt) == pytest.approx(48.1308, abs=1e-4)  # MSE = 1, so 20 log10(255)
    assert psnr(gt, gt) == math.inf


def test_psnr_y_of_a_one_level_error_of_green():
    gt = np.full((8, 8, 3), 128, np.uint8)
    out = gt + np.array([0, 1, 0], np.uint8)
    assert psnr_y(out, gt) == pytest.approx(20 * math.log10(255 / (128.553 / 255)), abs=1e-9)
    assert psnr_y(gt, gt) == math.inf


@pytest.mark.parametrize("size", [(11, 11), (12, 90), (64, 33), (75, 21), (140, 150)])
def test_psnr_and_ssim_agree_with_scikit_image(size):
    gt = draw(*size)
    out = worsen(gt)
    expected = structural_similarity(
        out, gt, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2, data_range=255
    )
    assert ssim(out, gt) == pytest.approx(expected, abs=1e-7)
    assert psnr(out, gt) == pytest.approx(peak_signal_noise_ratio(gt, out), abs=1e-9)
    y_out, y_gt = rgb2ycbcr(out)[..., 0], rgb2ycbcr(gt)[..., 0]
    assert psnr_y(out, gt) == pytest.approx(10 * math.log10(255**2 / np.mean((y_out - y_gt) ** 2)), abs=1e-6)


def test_ssim_of_equal_pictures_is_one():
    gt = draw(40, 40)
    assert ssim(gt, gt) == pytest.approx(1, abs=1e-12)


def test_blockiness_of_drawn_blocks():
    ramp = np.arange(32)
    gray = ramp + 4 * (ramp // 8)  # steps of 1 inside blocks, 5 across borders
    image = np.repeat((gray[:, None] + gray)[..., None], 3, axis=2).astype(np.uint8)
    assert blockiness(image) == pytest.approx(5, rel=1e-5)
    assert blockiness(image[:, :8]) == pytest.approx(5, rel=1e-5)  # borders in one direction only


def test_blockiness_without_steps_or_borders():
    flat = np.full((16, 16, 3), 7, np.uint8)
    assert blockiness(flat) == 1
    assert blockiness(draw(8, 8)) == 1
    assert (
        blockiness(np.repeat(np.arange(2, dtype=np.uint8) * 90, 8)[None, :, None].repeat(16, 0).repeat(3, 2))
        == math.inf
    )
    ninth = np.full((8, 9, 3), 7, np.uint8)
    ninth[:, 8] = 90
    assert blockiness(ninth) == math.inf


def test_blockiness_of_the_samples():
    """Recorded from the shipped files, which are lossless."""
    found = [blockiness(read_rgb(path)) for path in samples()]
    assert found == pytest.approx([1.0259, 0.9980, 0.9918], abs=1e-3)


class TorchLpips(torch.nn.Module):
    """LPIPS 0.1 with AlexNet as its authors define it, on the weights of the shipped file."""

    def __init__(self):
        super().__init__()
        graph = onnx.load(locate("lpips-alex")).graph
        for tensor in graph.initializer:
            self.register_buffer(
                tensor.name.replace(".", "_"), torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
            )

    def features(self, x):
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(
            1, 3, 1, 1
        )
        for k, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)], start=1):
            if k in (2, 3):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(F.conv2d(x, getattr(self, f"conv{k}_weight"), getattr(self, f"conv{k}_bias"), stride, padding))
            yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    def forward(self, in0, in1):
        total = 0
        for k, (a, b) in enumerate(zip(self.features(in0), self.features(in1), strict=True)):
            total = total + F.conv2d((a - b).square(), getattr(self, f"lin{k}_weight")).mean()
        return total.item()


@pytest.mark.parametrize("size", [(31, 31), (47, 90)])
def test_lpips_agrees_with_pytorch(size):
    net = TorchLpips()
    gt = draw(*size)
    out = worsen(gt)
    a, b = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in (out, gt))
    with torch.no_grad():
        assert lpips(out, gt) == pytest.approx(net(2 * a - 1, 2 * b - 1), abs=2e-5)
        assert lpips(out, gt, legacy=True) == pytest.approx(net(a, b), abs=2e-5)
    assert lpips(gt, gt) == 0


def test_lpips_of_the_samples():
    """Recorded from PyTorch on the published float32 weights; the shipped file rounds them to float16.

    The same code gives 0.7219 and 0.1376 on the published example pairs ex_ref/ex_p0 and ex_ref/ex_p1.
    """
    found = []
    for path in samples():
        gt = read_rgb(path)[:256, :256]
        found.append((lpips(posterize(gt), gt), lpips(posterize(gt), gt, legacy=True)))
    recorded = [(0.1375, 0.0834), (0.1745, 0.1246), (0.0713, 0.0481)]
    assert np.array(found) == pytest.approx(np.array(recorded), abs=1e-3)


def test_names_of_alexnet_are_kept_for_the_loss():
    graph = onnx.load(locate("lpips-alex")).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    assert shapes["conv1.weight"] == (64, 3, 11, 11)
    assert shapes["conv5.bias"] == (256,)
    assert [shapes[f"lin{k}.weight"] for k in range(5)] == [(1, c, 1, 1) for c in (64, 192, 384, 256, 256)]
    assert shapes["shift"] == shapes["scale"] == (1, 3, 1, 1)


def test_lpips_needs_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from subjectiveqe.metrics import lpips\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "lpips(np.zeros((31, 31, 3), np.uint8), np.ones((31, 31, 3), np.uint8))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


class TorchDists(torch.nn.Module):
    """DISTS as its authors publish it, on given arrays."""

    def __init__(self, vgg16, alpha, beta):
        super().__init__()
        self.arrays = {name: torch.from_numpy(array) for name, array in vgg16.items()}
        self.alpha, self.beta = torch.from_numpy(alpha), torch.from_numpy(beta)

    def features(self, x):
        found = [x]
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            1, 3, 1, 1
        )
        window = torch.from_numpy(np.hanning(5)[1:-1]).float()
        window = window[:, None] * window / (window[:, None] * window).sum()
        for indices in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            if indices[0]:
                kernel = window.repeat(x.shape[1], 1, 1, 1)
                x = (F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
            for index in indices:
                x = F.relu(
                    F.conv2d(
                        x, self.arrays[f"features.{index}.weight"], self.arrays[f"features.{index}.bias"], padding=1
                    )
                )
            found.append(x)
        return found

    def forward(self, x, y):
        total = self.alpha.sum() + self.beta.sum()
        similarity, first = 0, 0
        for f, g in zip(self.features(x), self.features(y), strict=True):
            alpha, beta = (w[first : first + f.shape[1]] / total for w in (self.alpha, self.beta))
            first += f.shape[1]
            mf, mg = f.mean((2, 3)), g.mean((2, 3))
            vf, vg = f.var((2, 3), correction=0), g.var((2, 3), correction=0)
            cov = (f * g).mean((2, 3)) - mf * mg
            similarity = similarity + (alpha * (2 * mf * mg + 1e-6) / (mf**2 + mg**2 + 1e-6)).sum()
            similarity = similarity + (beta * (2 * cov + 1e-6) / (vf + vg + 1e-6)).sum()
        return 1 - similarity.item()


@pytest.fixture
def no_session():
    """DISTS keeps its network for the life of the process."""
    metrics._session.cache_clear()
    yield
    metrics._session.cache_clear()


@pytest.mark.usefixtures("no_session")
def test_dists_agrees_with_pytorch(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    vgg16 = random_vgg16(rng)
    alpha, beta = rng.random((2, 1475), np.float32)
    np.savez(tmp_path / "vgg16.npz", **vgg16)
    np.savez(tmp_path / "dists.npz", alpha=alpha, beta=beta)
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    gt = draw(33, 50)
    out = worsen(gt)
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in (out, gt))
    with torch.no_grad():
        assert dists(out, gt) == pytest.approx(TorchDists(vgg16, alpha, beta)(x, y), abs=1e-5)
    assert dists(gt, gt) == pytest.approx(0, abs=1e-6)


@pytest.mark.skipif(
    any(w.path is None for w in list_weights() if w.name in ("vgg16", "dists")), reason="needs weights that do not ship"
)
@pytest.mark.usefixtures("no_session")
def test_dists_of_the_samples():
    """Recorded from PyTorch; the same code gives 0.3347 on the published example pair r0/r1."""
    found = []
    for path in samples():
        gt = read_rgb(path)[:128, :128]
        found.append(dists(posterize(gt), gt))
    assert found == pytest.approx([0.1884, 0.3386, 0.2076], abs=1e-4)


@pytest.mark.usefixtures("no_session")
def test_dists_without_weights_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"vgg16.*sqe weights"):
        dists(draw(32, 32), draw(32, 32))


def random_vgg16(rng):
    widths = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    widths |= {17: (512, 256)} | dict.fromkeys((19, 21, 24, 26, 28), (512, 512))
    vgg16 = {}
    for index, (fan_out, fan_in) in widths.items():
        noise = rng.standard_normal((fan_out, fan_in, 3, 3), np.float32)
        vgg16[f"features.{index}.weight"] = noise * np.float32(math.sqrt(2 / (9 * fan_in)))
        vgg16[f"features.{index}.bias"] = rng.normal(0, 0.1, fan_out).astype(np.float32)
    return vgg16


@pytest.mark.usefixtures("no_session")
def test_lpips_vgg_agrees_with_the_loss(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "vgg16.npz", **random_vgg16(rng))
    heads = {f"lin{k}.weight": rng.random((1, c, 1, 1), np.float32) for k, c in enumerate((64, 128, 256, 512, 512))}
    np.savez(tmp_path / "lpips-vgg.npz", **heads)
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    loss = make_perceptual("lpips-vgg", "pretrained", 0)
    gt = draw(33, 50)
    out = worsen(gt)
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in (out, gt))
    with torch.no_grad():
        expected = loss(x, y, torch.Generator()).item()
    assert lpips_vgg(out, gt) == pytest.approx(expected, rel=1e-4)
    assert lpips_vgg(gt, gt) == 0


def test_an_original_is_looked_at_once(monkeypatch):
    gt = draw(40, 48)
    original = Original(gt)
    looks = []
    see = metrics._see
    monkeypatch.setattr(
        metrics, "_see", lambda judge, image, *rest: looks.append(image is gt) or see(judge, image, *rest)
    )
    values = [lpips(worsen(gt), original), lpips(gt, original), lpips(worsen(gt), original, legacy=True)]
    assert looks.count(True) == 1 + 1 + 1  # for each reading, and as the picture that is judged itself
    assert values == [lpips(worsen(gt), gt), 0, lpips(worsen(gt), gt, legacy=True)]
    assert psnr(worsen(gt), original) == psnr(worsen(gt), gt)


def torch_ms_ssim(out, gt):
    """With 2-D windows and average pooling by PyTorch, each channel by itself."""
    taps = torch.exp(-0.5 * (torch.arange(-5, 6) / 1.5).double() ** 2)
    window = torch.outer(taps, taps).div(taps.sum() ** 2).expand(3, 1, -1, -1)
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None].double() for image in (out, gt))
    total = torch.ones(3, dtype=torch.double)
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        mx, my, xx, yy, xy = (F.conv2d(m, window, groups=3) for m in (x, y, x * x, y * y, x * y))
        structure = (2 * (xy - mx * my) + 58.5225) / (xx - mx**2 + yy - my**2 + 58.5225)
        luminance = (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025) if scale == 4 else 1
        total *= (structure * luminance).mean((0, 2, 3)) ** weight
    return total.mean().item()


def test_ms_ssim_agrees_with_pytorch():
    gt = read_rgb(samples()[0])[:177, :200]
    for out in (posterize(gt), worsen(gt)):
        assert ms_ssim(out, gt) == pytest.approx(torch_ms_ssim(out, gt), abs=1e-9)
    assert ms_ssim(gt, gt) == pytest.approx(1)


def test_ms_ssim_counts_what_is_negative_as_nothing():
    gt = draw(176, 180)
    assert ssim(255 - gt, gt) < 0
    assert ms_ssim(255 - gt, gt) == 0
    for out in (gt[:175], gt[:, :175]):
        with pytest.raises(ShapeError, match="MS-SSIM needs pictures of at least 176x176 px"):
            ms_ssim(out, out)


def test_psnr_b_counts_steps_at_borders():
    flat = np.full((16, 24, 3), 100, np.uint8)
    blocks = flat.copy()
    blocks[:, 8:16] += 10  # 10 levels of gray are 8.588 of limited-range luma
    error = 10 * 219 / 255
    mse = error**2 / 3
    # Two borders of 16 px each, of 2 x 16 px down and one row of 24 px across; a step in 32 of these 56.
    excess = error**2 * 32 / 56
    expected = 10 * math.log10(255**2 / (mse + excess * 3 / 4))
    assert psnr_b(blocks, flat) == pytest.approx(expected, abs=1e-5)
    inside = flat.copy()
    inside[:, 4:12] += 10
    assert psnr_b(inside, flat) == pytest.approx(psnr_y(inside, flat), abs=1e-5)


def recursive_gaussian(values, sigma=1.5):
    """Along the first axis, step by step as libjxl has it, in doubles (Charalampidis, IEEE TSP 2016)."""
    reach = round(3.2795 * sigma + 0.2546)
    turns = np.array([1, 3, 5]) * np.pi / (2 * reach)
    signs = np.array([1, -1, 1])
    p = signs / np.tan(turns / 2)
    r = signs * p**2 / np.sin(turns)
    rho = np.exp(-((sigma * turns) ** 2) / 2) / reach
    det = [p[k] * r[(k + 1) % 3] - r[k] * p[(k + 1) % 3] for k in range(3)]
    zeta = np.array([det[1] / det[0], det[2] / det[0], 1])
    beta = np.linalg.solve([p, r, zeta], [1, reach**2 - sigma**2, zeta @ rho])
    padded = np.pad(values, [(reach + 1, 2 * reach)] + [(0, 0)] * (values.ndim - 1))
    last = before = np.zeros((3, *values.shape[1:]))
    out = []
    for n in range(-reach + 1, len(values)):
        left = padded[n] if n >= 0 else 0 * padded[0]
        both = left + padded[n + 2 * reach]
        shape = (3,) + (1,) * (values.ndim - 1)
        now = (-beta * np.cos(turns * (reach + 1))).reshape(shape) * both
        now += (2 * np.cos(turns)).reshape(shape) * last - before
        last, before = now, last
        if n >= 0:
            out.append(now.sum(axis=0))
    return np.array(out)


def ssimulacra2_in_doubles(out, gt):
    def xyb(light):
        first, second, third = np.cbrt(
            light @ np.array(ssimulacra._TO_CONES, float).T + 0.0037930732552754493
        ).transpose(2, 0, 1)
        bias = np.cbrt(0.0037930732552754493)
        x, y, b = (first - second) / 2, (first + second) / 2 - bias, third - bias
        return np.stack([14 * x + 0.42, y + 0.01, b - y + 0.55], axis=2)

    def blur(planes):
        return recursive_gaussian(recursive_gaussian(planes).transpose(1, 0, 2)).transpose(1, 0, 2)

    def halved(light):
        height, width, _ = light.shape
        rows, columns = (np.minimum(np.arange(-(-side // 2) * 2), side - 1) for side in (height, width))
        return light[rows][:, columns].reshape(-(-height // 2), 2, -(-width // 2), 2, 3).mean((1, 3))

    pair = [np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) for v in (gt / 255, out / 255)]
    sums = []
    while len(sums) < 6 and min(pair[0].shape[:2]) >= 8:
        if sums:
            pair = [halved(light) for light in pair]
        a, b = map(xyb, pair)
        mean_a, mean_b = blur(a), blur(b)
        top = (1 - (mean_a - mean_b) ** 2) * (2 * (blur(a * b) - mean_a * mean_b) + 0.0009)
        d = np.maximum(1 - top / (blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2 + 0.0009), 0)
        edge = (1 + abs(b - mean_b)) / (1 + abs(a - mean_a)) - 1
        maps = (d, np.maximum(edge, 0), np.maximum(-edge, 0))
        sums.append([[(m.mean((0, 1)), (m**4).mean((0, 1)) ** 0.25)[norm] for m in maps] for norm in (0, 1)])
    each = np.array(sums).transpose(3, 0, 1, 2).ravel()
    x = 0.9562382616834844 * (each @ ssimulacra._WEIGHTS[: len(each)])
    return 100 - 10 * (2.326765642916932 * x - 0.020884521182843837 * x**2 + 6.248496625763138e-05 * x**3) ** (
        0.6276336467831387
    )


@pytest.mark.parametrize("size", [(130, 151), (113, 128), (64, 80), (8, 9)])
def test_ssimulacra2_is_that_of_the_reference(size):
    """Written once more from it, in doubles and with its recursive blur."""
    gt = read_rgb(samples()[0])[40 : 40 + size[0], 90 : 90 + size[1]]
    out = posterize(gt)
    assert ssimulacra2(out, gt) == pytest.approx(ssimulacra2_in_doubles(out, gt), abs=0.05)
    assert ssimulacra2(gt, gt) == pytest.approx(100)
    assert ssimulacra2(out, gt) < 97


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("lacking", ["features.28.weight", "lin4.weight"])
def test_weights_that_lack_a_layer_are_an_error_of_one_line(tmp_path, monkeypatch, capfd, lacking):
    heads = {f"lin{k}.weight": np.ones((1, c, 1, 1), np.float32) for k, c in enumerate((64, 128, 256, 512, 512))}
    for name, arrays in (("vgg16", random_vgg16(np.random.default_rng(0))), ("lpips-vgg", heads)):
        np.savez(tmp_path / f"{name}.npz", **{key: array for key, array in arrays.items() if key != lacking})
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    expected = r"vgg16\.npz or .*lpips-vgg\.npz: not the weights that lpips_vgg needs \(.*\); remove what is there"
    with pytest.raises(WeightsError, match=expected) as caught:
        lpips_vgg(draw(32, 32), draw(32, 32))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_session")
def test_a_damaged_judge_of_the_package_is_told(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("protobuf parsing failed")

    monkeypatch.setattr(metrics, "onnx_session", fails)
    with pytest.raises(WeightsError, match=r"lpips_alex\.onnx: damaged \(protobuf .*\); install the package again"):
        lpips(draw(40, 48), draw(40, 48))


def test_a_network_that_fails_is_an_error_of_one_line(monkeypatch):
    """As it does where memory runs out."""
    session = metrics._session("lpips_alex")
    monkeypatch.setattr(metrics, "_session", lambda _: type("", (), {"run": lambda *_: session.run(None, {})}))
    with pytest.raises(SubjectiveQEError, match=r"lpips_alex: 48x40 px cannot be judged \(.*\); is the memory"):
        lpips(draw(40, 48), draw(40, 48))


@pytest.mark.parametrize("metric", [psnr, psnr_y, ssim, lpips, dists, ms_ssim, psnr_b, lpips_vgg, ssimulacra2])
def test_pictures_of_two_shapes_are_refused(metric):
    with pytest.raises(ShapeError, match="one shape"):
        metric(draw(40, 48), draw(48, 40))


@pytest.mark.parametrize(
    ("metric", "least"), [(ssim, 11), (lpips, 31), (dists, 16), (lpips_vgg, 16), (psnr_b, 9), (ssimulacra2, 8)]
)
def test_pictures_that_are_too_small_are_refused(metric, least):
    with pytest.raises(ShapeError, match=f"at least {least}x{least} px, got {least - 1}x40"):
        metric(draw(40, least - 1), draw(40, least - 1))


@pytest.mark.parametrize(
    "bad", [np.zeros((40, 40, 3), np.float32), np.zeros((40, 40), np.uint8), np.zeros((40, 40, 4), np.uint8)]
)
def test_arrays_that_are_no_picture_are_refused(bad):
    for metric in (psnr, psnr_y, ssim, lpips):
        with pytest.raises(ShapeError, match="uint8 RGB"):
            metric(bad, bad)
    with pytest.raises(ShapeError, match="uint8 RGB"):
        blockiness(bad)


def test_one_pixel_has_a_psnr():
    assert psnr(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)) == 0


def noisy_pairs(count=2):
    return [(worsen(draw(256, 320, k), k), draw(256, 320, k)) for k in range(count)]


def test_white_noise_has_no_grid_lines():
    assert max(grid_lines(noisy_pairs()).values()) < 1.35
    equal = draw(128, 128)
    assert grid_lines([(equal, equal)]) == {2: 1, 4: 1, 8: 1}


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("along", [0, 1])
def test_a_faint_grid_shows_at_its_period_alone(period, along):
    """A cosine of half the noise's amplitude, which no distance would tell from noise."""
    pairs = []
    for out, gt in noisy_pairs():
        position = np.indices(out.shape[:2])[along][..., None]
        grid = 6 * np.cos(2 * np.pi * position / period)
        pairs.append((np.clip(np.rint(out + grid), 0, 255).astype(np.uint8), gt))
    ratios = grid_lines(pairs)
    assert ratios.pop(period) > 3
    assert max(ratios.values()) < 1.5


@pytest.mark.parametrize(("period", "harmonic"), [(4, 1), (8, 1), (8, 3)])
def test_harmonics_are_looked_for_that_no_shorter_period_has(period, harmonic):
    pairs = []
    for out, gt in noisy_pairs():
        grid = 6 * np.cos(2 * np.pi * harmonic * np.arange(out.shape[1]) / period)[None, :, None]
        pairs.append((np.clip(np.rint(out + grid), 0, 255).astype(np.uint8), gt))
    ratios = grid_lines(pairs)
    assert ratios.pop(period) > 3
    assert max(ratios.values()) < 1.5


def test_a_grid_in_patches_of_its_own_phase_shows_too():
    """Checkers of random phase per row gather nowhere along the axis; the mean over cross frequencies has them."""
    rng = np.random.default_rng(0)
    gt = draw(256, 256)
    flips = rng.choice([-1, 1], 256)[:, None, None]
    checkers = np.where(np.arange(256) % 2, 10, -10)[None, :, None] * flips
    out = np.clip(worsen(gt).astype(int) + checkers, 0, 255).astype(np.uint8)
    assert grid_lines([(out, gt)])[2] > 3


def test_the_spectrum_refuses_what_holds_no_patch():
    with pytest.raises(ShapeError, match="at least 128x128"):
        grid_lines([(draw(127, 128), draw(127, 128))])
    with pytest.raises(ShapeError, match="none"):
        grid_lines([])
