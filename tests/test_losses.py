"""Losses have the values a hand can check, and their gradients point the right way."""

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.measure import block_reduce
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from subjectiveqe import metrics
from subjectiveqe.color import LUMA
from subjectiveqe.errors import ConfigError, WeightsError
from subjectiveqe.losses import (
    balance_weights,
    border_loss,
    charbonnier,
    chroma_loss,
    estimate_loss,
    grid_loss,
    harm_loss,
    psnr_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    spectrum_loss,
    ssim_loss,
)
from subjectiveqe.perceptual import VGG, View, draw_view, make_perceptual


def test_charbonnier_of_equal_pictures_is_the_root_of_eps():
    assert charbonnier(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)).tolist() == pytest.approx([1e-3] * 2)


def test_charbonnier_of_a_large_error_is_its_size():
    assert charbonnier(torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2)).item() == pytest.approx(0.5, abs=1e-5)


def test_the_psnr_loss_is_psnr(draw_image):
    gt = draw_image((32, 40))
    noise = np.random.default_rng(0).normal(0, 1, gt.shape)
    noisy = [np.clip(np.rint(gt + scale * noise), 0, 255).astype(np.uint8) for scale in (10, 20)]
    out, expected = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).float() / 255 for x in (noisy, [gt, gt]))
    assert psnr_loss(out, expected).tolist() == pytest.approx([-metrics.psnr(image, gt) for image in noisy], abs=0.1)
    assert psnr_loss(expected, expected).tolist() == pytest.approx([-50, -50])


def test_relativistic_losses_are_ln_2_when_all_are_rated_alike():
    same = torch.full((4, 1), 3.0)
    assert relativistic_g_loss(same, same).item() == pytest.approx(math.log(2))
    assert relativistic_d_loss(same, same).item() == pytest.approx(math.log(2))


def test_relativistic_losses_by_hand():
    real, fake = torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0], [0.0]])
    soft = lambda x: math.log1p(math.exp(x))  # noqa: E731
    d = ((soft(0.5 - 2) + soft(0.5 - 4)) / 2 + (soft(1 - 3) + soft(0 - 3)) / 2) / 2
    g = ((soft(3 - 1) + soft(3 - 0)) / 2 + (soft(2 - 0.5) + soft(4 - 0.5)) / 2) / 2
    assert relativistic_d_loss(real, fake).item() == pytest.approx(d)
    assert relativistic_g_loss(real, fake).item() == pytest.approx(g)


def test_the_g_loss_treats_real_logits_as_constants():
    real, fake = torch.zeros(2, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    relativistic_g_loss(real, fake).backward()
    assert real.grad is None
    assert (fake.grad < 0).all()  # a higher rating of the output lowers G's loss


def blocky(top: int, left: int, step: float) -> torch.Tensor:
    """A picture of noise with a checker of 8-px blocks whose corner lies at (top, left)."""
    generator = torch.Generator().manual_seed(0)
    y, x = (torch.arange(64) - top) // 8 % 2, (torch.arange(64) - left) // 8 % 2
    noise = torch.rand(1, 3, 64, 64, generator=generator) * 0.1
    return noise + step * (y[:, None] ^ x[None, :]).float()


@pytest.mark.parametrize("grid", [(0, 0), (3, 5), (7, 1)])
def test_the_border_loss_sees_steps_on_the_grid_only(grid):
    flat, stepped = blocky(*grid, 0.0), blocky(*grid, 0.1)
    on_grid = border_loss(stepped, flat, torch.tensor([grid]))
    off_grid = border_loss(stepped, flat, torch.tensor([[(place + 4) % 8 for place in grid]]))
    assert border_loss(flat, flat, torch.tensor([grid])).item() == 0
    assert on_grid.item() > 0.69  # more than twice the original's steps
    assert off_grid.item() < 0.3


def test_the_border_loss_agrees_with_the_metric():
    gray = blocky(0, 0, 0.1).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    flat = blocky(0, 0, 0.0).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    loss = border_loss(gray, flat, torch.tensor([[0, 0]])).item()
    pictures = ((x[0].permute(1, 2, 0) * 255).round().byte().numpy() for x in (gray, flat))
    stepped, pristine = (metrics.blockiness(picture) for picture in pictures)
    # The loss damps steps of a few levels, so it stays a little below; a tenth of slack is given away.
    assert 0.75 * math.log(stepped / pristine) < loss + 0.1 < math.log(stepped / pristine)


def test_the_border_loss_leaves_texture_alone():
    gt, out = noise(4, 3, 96, 96), noise(8, 3, 96, 96)[4:]
    assert border_loss(out + 0.5, gt + 0.5, torch.zeros(4, 2, dtype=torch.int64)).item() == 0


def test_the_border_loss_lowers_the_steps_at_borders_and_nothing_else():
    out = blocky(0, 0, 0.1).requires_grad_(True)
    border_loss(out, blocky(0, 0, 0.0), torch.tensor([[0, 0]])).backward()
    moved = out.grad.abs().sum((0, 1)) > 0
    inside = [place for place in range(64) if place % 8 not in (0, 7)]
    assert not moved[inside][:, inside].any()
    assert moved[8].any()


def noise(*shape):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("period", [2, 4, 8])
def test_the_grid_loss_is_about_the_amplitude_of_a_pattern(period):
    gt = torch.zeros(2, 3, 96, 96)
    comb = 0.1 * (torch.arange(96) % period < period / 2).float()
    assert grid_loss(gt + comb, gt).item() == pytest.approx(0.05, abs=1e-6)
    assert grid_loss(gt + comb[:, None], gt).item() == pytest.approx(0.05, abs=1e-6)
    assert grid_loss(gt + 0.3, gt).item() == pytest.approx(0, abs=1e-6)  # a shift of brightness is no pattern


def test_the_grid_loss_hardly_sees_what_is_not_regular():
    gt = torch.zeros(2, 3, 96, 96)
    assert grid_loss(gt + noise(2, 3, 96, 96), gt).item() < 0.3 * noise(2, 3, 96, 96).abs().mean().item()


def test_the_estimate_loss_by_hand():
    estimate = torch.tensor([[[0.5, 0.0], [0.0, 0.0]], [[0.25, 9.0], [-1.0, 0.0]]], requires_grad=True)
    truth = torch.tensor([[0.7, 0.0, 5.0], [0.25, torch.nan, 5.0]])  # one unknown; a third family the network lacks
    loss = estimate_loss(estimate, truth)
    assert loss.item() == pytest.approx((100 * 0.04 + 0.2 - 1.0) / 3)
    loss.backward()
    assert estimate.grad[1, :, 1].abs().sum() == 0


def test_values_learn_from_the_squared_error_alone():
    estimate = torch.tensor([[[0.1, -0.2], [-3.0, 0.5]]], requires_grad=True)
    estimate_loss(estimate, torch.zeros(1, 2)).backward()
    assert estimate.grad[0, 0].tolist() == pytest.approx([200 * 0.1 / 2, 200 * -0.2 / 2])


def test_an_estimate_that_is_too_coarse_may_count_more():
    truth = torch.zeros(2, 1)
    plain, cautious = (
        estimate_loss(torch.tensor([[[0.1], [0.0]], [[-0.1], [0.0]]]), truth, too_coarse=weight)
        for weight in (1.0, 3.0)
    )
    assert plain.item() == pytest.approx(100 * 0.01 + 0.1)
    assert cautious.item() == pytest.approx(100 * 0.01 * (3 + 1) / 2 + 0.1)
    above = estimate_loss(torch.tensor([[[0.1], [0.0]]]), truth[:1], too_coarse=3.0)
    assert above.item() == pytest.approx(3 * 100 * 0.01 + 0.1)


def test_balance_gives_fine_levels_their_say():
    gt = torch.zeros(4, 3, 8, 8)
    lq = torch.tensor([0.04, 0.02, 0.01, 0.001]).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    assert balance_weights(lq, gt, 0.0).tolist() == [1, 1, 1, 1]
    assert balance_weights(lq, gt, 1.0).tolist() == pytest.approx([0.5, 1, 2, 8], rel=0.01)


def test_harm_is_felt_only_where_the_output_is_the_worse_one():
    before = torch.tensor([0.2, 0.01, 0.01])
    after = torch.tensor([0.1, 0.01, 0.03], requires_grad=True)
    loss = harm_loss(after, before)
    assert loss.item() == pytest.approx((0.02 / 0.02) / 3)
    loss.backward()
    assert after.grad.tolist() == pytest.approx([0, 0, 50 / 3])


def test_chroma_is_that_of_bt_601_and_blind_to_luma():
    out, gt = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out_limited, gt_limited = (rgb2ycbcr(picture[0].permute(1, 2, 0).numpy()) for picture in (out, gt))
    expected = np.sqrt(np.square((out_limited - gt_limited)[..., 1:] / 224) + 1e-6).mean()
    assert chroma_loss(out, gt).item() == pytest.approx(expected, rel=1e-4)
    assert chroma_loss(gt + 0.2, gt).item() == pytest.approx(0.001, abs=1e-5)


def test_the_spectrum_asks_for_as_much_texture_wherever_it_lies():
    gt = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    moved, smooth = gt.roll((3, 5), dims=(2, 3)), F.avg_pool2d(gt, 3, stride=1, padding=1)
    assert spectrum_loss(gt, gt).item() == pytest.approx(0.001, abs=1e-5)
    assert charbonnier(moved, gt) > 1.2 * charbonnier(smooth, gt)
    assert spectrum_loss(moved, gt) < 0.8 * spectrum_loss(smooth, gt)


def test_the_spectrum_has_the_amplitudes_of_a_fourier_transform():
    rng = np.random.default_rng(0)
    out, gt = rng.random((2, 3, 32, 32))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(32) / 32)
    a, b = (np.abs(np.fft.rfft2(picture * np.outer(hann, hann), norm="ortho")) for picture in (out, gt))
    x, y = (torch.from_numpy(picture.astype(np.float32))[None] for picture in (out, gt))
    assert spectrum_loss(x, y).item() == pytest.approx(np.sqrt(np.square(a - b) + 1e-6).mean(), rel=1e-4)


def test_the_ssim_loss_is_that_of_three_scales_of_luma():
    rng = np.random.default_rng(0)
    gt = rng.random((48, 64, 3))
    out = 0.7 * gt + 0.3 * rng.random((48, 64, 3))
    similar = []
    for factor in (1, 2, 4):
        luma_out, luma_gt = (block_reduce(picture @ np.array(LUMA), (factor, factor), np.mean) for picture in (out, gt))
        similar.append(
            structural_similarity(
                luma_out, luma_gt, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
            )
        )
    x, y = (torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] for picture in (out, gt))
    assert ssim_loss(x, y).item() == pytest.approx(1 - np.mean(similar), abs=1e-5)
    assert ssim_loss(y, y).item() == pytest.approx(0, abs=1e-6)


def test_views_are_a_function_of_the_generator():
    draws = [draw_view(torch.Generator().manual_seed(7)) for _ in range(2)]
    assert draws[0] == draws[1]
    many = [draw_view(torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert {view.top_px for view in many} == set(range(8))
    assert 0.4 < np.mean([view.scale != 1 for view in many]) < 0.8
    assert all(0.75 <= view.scale <= 1.5 for view in many)


def test_a_view_moves_and_mirrors_both_pictures_alike():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert torch.equal(View(1.0, 1, 2, (3,), max_shift_px=3)(x), x[..., 1:4, 2:5].flip(3))


def test_lpips_as_a_loss_agrees_with_lpips_as_a_metric(draw_image):
    gt, out = draw_image((64, 72), seed=1), draw_image((64, 72), seed=2)
    loss = make_perceptual("lpips-alex-randomised", "pretrained", seed=0)
    loss.randomised = False
    x, y = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 for picture in (out, gt))
    assert loss(x, y, torch.Generator()).item() == pytest.approx(metrics.lpips(out, gt), abs=1e-4)


def test_lpips_alex_is_never_taken_at_a_fixed_phase():
    loss = make_perceptual("lpips-alex-randomised", "random", seed=0)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    assert len({loss(x, y, generator).item() for _ in range(5)}) == 5


@pytest.mark.parametrize("kind", ["vgg19", "vgg16", "lpips-vgg", "lpips-alex-randomised"])
def test_perceptual_losses_are_small_for_equal_pictures_and_teach(kind):
    loss = make_perceptual(kind, "random", seed=0)
    gt = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    out = (gt + 0.1).requires_grad_(True)
    apart = loss(out, gt, torch.Generator().manual_seed(0))
    apart.sum().backward()
    assert loss(gt, gt, torch.Generator().manual_seed(0)).sum() < apart.sum()
    assert out.grad.abs().sum() > 0
    assert all(not param.requires_grad for param in loss.parameters())


def test_vgg19_gives_conv5_4_before_its_relu():
    (features,) = VGG(19, ("conv5_4",))(torch.rand(1, 3, 64, 64))
    assert features.shape == (1, 512, 4, 4)
    assert (features < 0).any()


def test_vgg_layers_are_in_the_published_order():
    net = VGG(16, ("relu1_2", "relu2_2"))
    x = torch.rand(1, 3, 16, 16)
    first, second = net(x)
    by_hand = F.relu(net.convs["conv1_2"](F.relu(net.convs["conv1_1"](x))))
    assert torch.equal(first, by_hand)
    assert second.shape == (1, 128, 8, 8)


def test_missing_weights_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"vgg19.*sqe weights"):
        make_perceptual("vgg19", "pretrained", seed=0)


def test_an_unknown_perceptual_loss_is_named():
    with pytest.raises(ConfigError, match='unknown perceptual loss "dists"'):
        make_perceptual("dists", "random", seed=0)


def test_windows_of_spectra_leave_no_gap_between_them():
    gt = torch.zeros(1, 3, 32, 64)
    lines = [gt.clone() for _ in range(2)]
    for line, column in zip(lines, (16, 32), strict=True):
        line[..., column] = torch.arange(32) % 2
    first, second = (spectrum_loss(line, gt).item() for line in lines)
    assert first > 0.01
    assert second == pytest.approx(first, rel=1e-3)
