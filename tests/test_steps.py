"""One step, one validation and one checkpoint of training, against what they come to by hand."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from subjectiveqe import metrics
from subjectiveqe.config import DataConfig, LossConfig, StageConfig, ValidConfig, read_recipe
from subjectiveqe.data.patches import Patches
from subjectiveqe.data.store import open_pairs
from subjectiveqe.errors import ConfigError, ModelError
from subjectiveqe.losses import (
    balance_weights,
    charbonnier,
    grid_loss,
    harm_loss,
    relativistic_d_loss,
    relativistic_g_loss,
)
from subjectiveqe.nets import UNet
from subjectiveqe.nets.checkpoint import load_net, save_net
from subjectiveqe.nets.discriminator import PatchDiscriminator
from subjectiveqe.perceptual import PLAIN_VIEW
from subjectiveqe.training import loop, record
from subjectiveqe.training.batches import Batch, stream
from subjectiveqe.training.before import Start
from subjectiveqe.training.loop import start_state, train
from subjectiveqe.training.state import Learner, TrainState
from subjectiveqe.training.step import (
    GUARD_AFTER,
    STAGES,
    DivergedError,
    Stage,
    autocast,
    gan_step,
    generate,
    psnr_step,
    update,
    view_for,
)
from subjectiveqe.training.validate import Known, Scores, choose_pairs, validate

RECIPE = """
name: tiny
seed: 3
net_g: {kind: unet, hparams: {num_feat: [4, 4], num_block: [1, 1], num_coarseness: 2}}
net_d: {kind: patch, hparams: {num_feat: 4}}
data: {pairs: [STORE], patch_px: 32, workers: 0}
valid: {pairs: [STORE], every: 2, crop_px: 32, max_pictures: 2}
psnr: {steps: 6, batch: 2, lr: 1.0e-3, strength: 0.25, ema: 0.5, betas: [0.8, 0.9], loss: {pix: 1.0}}
gan: {steps: 6, batch: 2, lr: 1.0e-3, lr_d: 5.0e-4, loss: {pix: 1.0, adv: 0.01}}
checkpoint_every: 3
"""


@pytest.fixture(scope="module")
def store(draw_store):
    return draw_store(5, (64, 72))


@pytest.fixture
def recipe_path(tmp_path, store):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("STORE", str(store)))
    return path


class SmallD(nn.Module):
    """Rates each patch; of a fixed size, so that it sees patches as they are."""

    takes_any_size = False

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5, stride=2)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))


class Perceptual(nn.Module):
    """A distance that depends on the view that is drawn, as real ones do."""

    def forward(self, out, gt, generator):
        return (out - gt).abs().flatten(1).mean(1) * (1 + torch.rand(1, generator=generator))


def learner(net):
    """By plain descent, so that an update is the learning rate times the gradient."""
    return Learner(net, torch.optim.SGD(net.parameters(), lr=1.0))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    gt = torch.rand(4, 3, 32, 32)
    lq = (gt + torch.randn_like(gt) * torch.tensor([0.01, 0.02, 0.1, 0.2])[:, None, None, None]).clamp(0, 1)
    return Batch(lq, gt, torch.zeros(4, 2, dtype=torch.int64), torch.rand(4, 2), torch.tensor([1.0, 2.0, 3.0, 0.5]))


@pytest.fixture
def nets():
    torch.manual_seed(2)
    net_g = UNet(num_feat=(4, 4), num_block=(1, 1), num_coarseness=2)
    for param in net_g.parameters():
        param.data += 0.05 * torch.randn_like(param)
    return net_g.eval(), SmallD()  # the estimator's batch norms are no matter here


def moved(before, after):
    """By how much each weight has gone down."""
    return [a.detach() - b.detach() for a, b in zip(before.parameters(), after.parameters(), strict=True)]


def assert_moved(before, after, lr, losses):
    """Against the gradient of losses whose mean is what was minimised; what is not to learn stays."""
    learns = [param.requires_grad for param in before.parameters()]
    learning = [param for param in before.parameters() if param.requires_grad]
    gradient = iter(torch.autograd.grad(sum(losses) / len(losses), learning, allow_unused=True))
    for step, is_learning in zip(moved(before, after), learns, strict=True):
        expected = next(gradient) if is_learning else None
        expected = torch.zeros_like(step) if expected is None else lr * expected
        assert torch.allclose(step, expected, rtol=1e-3, atol=1e-7)
    assert any(step.abs().max() > 1e-6 for step in moved(before, after))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_psnr_step_follows_the_gradient_of_the_pixels(batch, nets, accumulate):
    net_g, _ = nets
    stage = StageConfig(steps=1, accumulate=accumulate, strength=0.25, loss=LossConfig(pix=0.7, balance=0.5))
    state = TrainState(learner(copy.deepcopy(net_g)))
    losses = psnr_step(state, batch, stage, (0.1, 9.0), torch.Generator())
    out = net_g(batch.lq, torch.full((4,), 0.25), batch.coarseness)
    expected = 0.7 * (balance_weights(batch.lq, batch.gt, 0.5) * charbonnier(out, batch.gt)).mean()
    assert losses["pix"] == pytest.approx(expected.item(), rel=1e-4)
    assert_moved(net_g, state.g.net, 0.1, [expected])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gan_step_follows_the_gradients_of_all_its_losses(batch, nets, accumulate):
    net_g, net_d = nets
    weights = LossConfig(pix=0.3, percep=1.5, harm=2.0, adv=0.4, grid=3.0, balance=0.5)
    stage = StageConfig(steps=1, accumulate=accumulate, strength=0.25, loss=weights)
    state = TrainState(*map(learner, copy.deepcopy(nets)), perceptual=Perceptual())
    gan_step(state, batch, stage, (0.1, 0.02), torch.Generator().manual_seed(5))
    generator, of_g, of_d = torch.Generator().manual_seed(5), [], []
    for part in batch.split(accumulate):
        out = net_g(part.lq, torch.full((len(part.lq),), 0.25), part.coarseness)
        factor, balance = 1 + torch.rand(1, generator=generator), balance_weights(part.lq, part.gt, 0.5)
        after, before = (factor * (x - part.gt).abs().flatten(1).mean(1) for x in (out, part.lq))
        real, fake = net_d(part.gt), net_d(out)
        of_g.append(
            0.3 * (balance * charbonnier(out, part.gt)).mean()
            + 1.5 * (balance * part.emphasis * after).mean()
            + 1.5 * 2.0 * harm_loss(after, before)
            + 0.4 * relativistic_g_loss(real.detach(), fake)
            + 3.0 * grid_loss(out, part.gt)
        )
        of_d.append(relativistic_d_loss(real, net_d(out.detach())))
    assert_moved(net_g, state.g.net, 0.1, of_g)
    assert_moved(net_d, state.d.net, 0.02, of_d)


def test_a_discriminator_for_any_size_sees_shifted_patches_and_others_do_not():
    drawn = [view_for(PatchDiscriminator(4), torch.Generator().manual_seed(seed)) for seed in range(8)]
    assert len(set(map(str, drawn))) > 1
    assert view_for(SmallD(), torch.Generator()) is PLAIN_VIEW


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_networks_run_in_the_precision_of_the_stage(precision):
    conv, x = nn.Conv2d(3, 3, 1), torch.rand(1, 3, 4, 4)
    with autocast(x, StageConfig(steps=1, precision=precision)):
        assert str(conv(x).dtype) == f"torch.{precision}"


def test_a_coarseness_that_is_not_known_is_the_networks_own_estimate(nets):
    net_g, _ = nets
    lq = torch.rand(2, 3, 32, 32)
    told = torch.tensor([[0.5, 0.0], [float("nan"), float("nan")]])
    with torch.no_grad():
        known = torch.stack((told[0], net_g.estimate(lq)[1, 0]))
        assert torch.equal(generate(net_g, lq, 1.0, told), net_g(lq, torch.ones(2), known))


class Recorder(nn.Module):
    """Gives a picture whose levels are to be rounded, and notes what it was told."""

    uses_strength, num_coarseness = True, 2

    def __init__(self, levels):
        super().__init__()
        self.weight, self.told = nn.Parameter(torch.zeros(1)), []
        self.levels = torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)[None]

    def forward(self, lq, dial, known):
        self.told.append((dial.tolist(), known.tolist()))
        return (self.levels - 0.4 + 0 * lq) / 255


def test_a_validation_judges_what_a_user_would_save(draw_image):
    lq, gt, levels = (draw_image((40, 48), seed) for seed in range(3))
    net = Recorder(levels)
    pairs = [Known(lq, gt, (0.5, 0.0)), Known(gt, lq, (0.0, 0.25))]
    scores, shown = validate(net, pairs, 0.75, show=1)
    assert scores.psnr_db == pytest.approx((metrics.psnr(levels, gt) + metrics.psnr(levels, lq)) / 2)
    assert scores.lpips == pytest.approx((metrics.lpips(levels, gt) + metrics.lpips(levels, lq)) / 2)
    assert net.told == [([0.75], [[0.5, 0.0]]), ([0.75], [[0.0, 0.25]])]
    assert [[np.array_equal(a, b) for a, b in zip(triple, (lq, levels, gt), strict=True)] for triple in shown] == [
        [True] * 3
    ]


def test_a_flat_picture_is_not_all_of_a_mean(draw_image):
    """One that is right to the last pixel, as black ones are, counts as any that is all but right."""
    photo, other, flat = draw_image((40, 48)), draw_image((40, 48), 1), np.zeros((40, 48, 3), np.uint8)
    pairs = [Known(other, photo, (0.5, 0.0)), Known(flat, flat, (0.5, 0.0))]
    scores, _ = validate(Recorder(flat), pairs, 1.0, show=0)
    assert scores.psnr_db == pytest.approx((metrics.psnr(flat, photo) + 60) / 2)


def test_pairs_to_validate_by_are_spread_over_all(store):
    chosen = choose_pairs(ValidConfig(pairs=[store], max_pictures=3))
    assert [index for _, index in chosen] == [0, 4, 9]  # half way, rounded to the even one


def test_the_stages_want_more_psnr_and_less_lpips():
    psnr, gan = STAGES.values()
    fine, coarse = Scores(30.0, 0.1), Scores(29.0, 0.2)
    assert psnr.goal(fine) > psnr.goal(coarse)
    assert gan.goal(fine) > gan.goal(coarse)


def test_the_averaged_weights_are_judged_and_the_best_and_last_of_them_kept(recipe_path, tmp_path, monkeypatch):
    recipe, scripted, seen = read_recipe(recipe_path, ["gan=null"]), iter([20.0, 22.0, 21.0]), []

    def judge(net, pairs, strength, **_):
        seen.append((copy.deepcopy(net.state_dict()), [pair.coarseness for pair in pairs], strength))
        return Scores(next(scripted), 0.5), []

    monkeypatch.setattr(record, "validate", judge)
    train(recipe, tmp_path / "run")
    folder = tmp_path / "run" / "psnr"
    content = torch.load(folder / "state.pt", weights_only=True)
    last, best = load_net(folder / "last.safetensors"), load_net(folder / "best.safetensors")
    assert (best[1]["step"], last[1]["step"], best[1]["trained_at"]) == ("4", "6", "0.25")
    for name, value in last[0].state_dict().items():
        assert torch.equal(value, content["ema_g"][name])
        assert torch.equal(value, seen[2][0][name])
        assert torch.equal(best[0].state_dict()[name], seen[1][0][name])
    assert not torch.equal(content["ema_g"]["tail.weight"], content["g"]["net"]["tail.weight"])
    assert all(len(told) == 2 and max(told) > 0.5 for told in seen[0][1])
    assert [strength for *_, strength in seen] == [0.25] * 3
    assert content["best"] == 22.0
    assert content["judged_step"] == 6


def test_a_run_of_the_gan_stage_alone_is_not_overwritten(recipe_path, tmp_path):
    recipe = read_recipe(recipe_path, ["psnr=null", "gan.steps=1", "gan.loss={pix: 1}", "valid=null"])
    train(recipe, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run; add --resume"):
        train(recipe, tmp_path / "run")


def test_weights_are_refused_where_a_run_started_afresh(recipe_path, tmp_path, nets):
    changes = ["gan=null", "psnr.steps=1", "valid=null"]
    train(read_recipe(recipe_path, changes), tmp_path / "run")
    save_net(tmp_path / "other.safetensors", nets[0], {})
    with pytest.raises(ConfigError, match="its run started from other weights; leave it out"):
        train(
            read_recipe(recipe_path, [*changes, "psnr.steps=2"]), tmp_path / "run", True, tmp_path / "other.safetensors"
        )


def test_a_validation_that_was_stopped_is_made_up_for_once(recipe_path, tmp_path, monkeypatch):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=3", "valid.every=3"])

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "validate", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    monkeypatch.undo()
    for _ in range(3):
        train(recipe, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "train.log").read_text().count(" valid PSNR ") == 1


def test_a_stage_gets_its_learning_rates_and_patches_of_its_own(recipe_path, tmp_path, monkeypatch):
    rates, seeds, drawn = [], [], loop.stream

    def watched(stage):
        def step(state, batch, config, lrs, generator):
            rates.append((stage.name, *lrs))
            return stage.step(state, batch, config, lrs, generator)

        return Stage(stage.name, step, stage.goal)

    def watched_stream(config, seed, *rest):
        seeds.append(seed)
        return drawn(config, seed, *rest)

    monkeypatch.setattr(loop, "STAGES", {name: watched(stage) for name, stage in STAGES.items()})
    monkeypatch.setattr(loop, "stream", watched_stream)
    train(read_recipe(recipe_path, ["valid=null", "psnr.steps=1", "gan.steps=1"]), tmp_path / "run")
    assert rates == [("psnr", 1e-3, 1e-3), ("gan", 1e-3, 5e-4)]
    assert seeds == [6, 7]


def test_optimizers_have_the_momenta_of_the_recipe(recipe_path):
    recipe = read_recipe(recipe_path)
    state = start_state(recipe, STAGES["psnr"], recipe.psnr, Start(), torch.device("cpu"))
    assert state.g.optim.param_groups[0]["betas"] == (0.8, 0.9)


def test_batches_are_the_patches_of_the_recipe(store):
    config = DataConfig(pairs=[store], patch_px=24, aligned=1.0, coarseness_noise=0.05, workers=0)
    batches, patches = (
        stream(config, 3, 4, 2, 1, 2, torch.device("cpu"), 2),
        Patches([open_pairs(store)], 24, 3, 1.0, 0.05, 2),
    )
    for step in (2, 3):
        batch = next(batches)
        for place, number in enumerate((4 * step + 2, 4 * step + 3)):  # the second process's share
            patch = patches[number]
            assert torch.equal(batch.lq[place], torch.from_numpy(patch.lq).permute(2, 0, 1).float() / 255)
            assert torch.equal(batch.gt[place], torch.from_numpy(patch.gt).permute(2, 0, 1).float() / 255)
            assert batch.coarseness[place].tolist() == pytest.approx(list(patch.coarseness))
            assert batch.grid[place].tolist() == list(patch.grid)


def of_norm(net, norm):
    params = list(net.parameters())
    size = sum(param.numel() for param in params) ** 0.5
    for param in params:
        param.grad = torch.full_like(param, norm / size)


def test_a_gradient_without_end_ends_the_run():
    student = learner(nn.Linear(2, 2))
    of_norm(student.net, float("inf"))
    with pytest.raises(DivergedError, match="step 8: the gradient of Linear is inf"):
        update(student, 0.1, StageConfig(steps=1), 7)


def test_a_spike_moves_the_mean_by_no_more_than_the_largest_norm_that_is_none():
    stage, student = StageConfig(steps=1, spike_factor=5.0), learner(nn.Linear(2, 2))
    for step in range(GUARD_AFTER):
        of_norm(student.net, 1.0)
        update(student, 1e-3, stage, step)
    of_norm(student.net, 1000.0)
    update(student, 1e-3, stage, 100)
    assert student.norm_mean == pytest.approx(0.98 + 0.02 * 5, rel=1e-3)
    again = learner(nn.Linear(2, 2))
    again.load_state_dict(copy.deepcopy(student.state_dict()))
    assert (again.norm_mean, again.num_updates, again.num_skipped) == (student.norm_mean, 100, 1)


def test_the_average_has_the_statistics_of_batch_norms():
    state = TrainState(learner(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))))
    state.g.net.train()(torch.rand(4, 3, 8, 8))
    state.follow(0.9)
    assert torch.equal(state.ema_g[1].running_mean, state.g.net[1].running_mean)


def test_a_state_comes_back_whole_or_not_at_all(tmp_path, monkeypatch):
    state = TrainState(learner(nn.Linear(2, 2)), step=7, best=31.5, judged_step=6)
    path = tmp_path / "state.pt"
    state.save(path)
    other = TrainState(learner(nn.Linear(2, 2)))
    other.load(path)
    assert (other.step, other.best, other.judged_step) == (7, 31.5, 6)
    assert torch.equal(other.g.net.weight, state.g.net.weight)

    def fail(self, content):
        with self.open("wb") as file:
            file.write(bytes(content[:10]))
        raise OSError("full")

    whole = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="full"):
        state.save(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [{"g": 1}, [1, 2], {"g": {"net": {}}}])
def test_a_file_that_is_no_state_is_named(tmp_path, content):
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(ModelError, match=r"state\.pt: no state of this run"):
        TrainState(learner(nn.Linear(2, 2))).load(tmp_path / "state.pt")
