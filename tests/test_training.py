"""Training learns, stops, resumes bit by bit and shares its work out, on real stores and in real processes."""

import json
import logging
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from subjectiveqe import distributed
from subjectiveqe.config import DataConfig, LossConfig, StageConfig, read_recipe
from subjectiveqe.data.patches import Patches
from subjectiveqe.data.prepare import prepare
from subjectiveqe.data.store import open_pairs
from subjectiveqe.errors import ConfigError, ImageError, ModelError, SubjectiveQEError
from subjectiveqe.images import write_png
from subjectiveqe.nets import NETS, UNet
from subjectiveqe.nets.checkpoint import load_net, save_net
from subjectiveqe.training import batches, record
from subjectiveqe.training.batches import stream
from subjectiveqe.training.before import Start
from subjectiveqe.training.loop import at_step, lr_at, start_state, train
from subjectiveqe.training.state import Learner, TrainState
from subjectiveqe.training.step import GUARD_AFTER, STAGES, DivergedError, update

RECIPES = Path(__file__).parents[1] / "recipes"

RECIPE = """
name: small
seed: 3
net_g: {kind: unet, hparams: {num_feat: [8, 8, 8], num_block: [1, 1, 1]}}
net_d: {kind: patch, hparams: {num_feat: 4}}
data: {pairs: [STORE], patch_px: 64, aligned: 0.5, workers: 2}
valid: {pairs: [STORE], every: 4, crop_px: 64, max_pictures: 2}
psnr: {steps: 4, batch: 4, lr: 1.0e-3, warmup: 2, schedule: cosine, ema: 0.9, loss: {pix: 1.0, border: 0.01}}
gan:
  steps: 12
  batch: 4
  lr: 1.0e-3
  clip_norm: 1.0
  spike_factor: 10
  ema: 0.9
  loss: {pix: 0.3, border: 0.05, percep: 1.0, percep_kind: lpips-alex-randomised, adv: 0.005}
log_every: 1
checkpoint_every: 3
"""


@pytest.fixture(scope="module")
def store(draw_store):
    return draw_store(3, (136, 144))


@pytest.fixture
def recipe_path(tmp_path, store):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.replace("STORE", str(store)))
    return path


def start(*arguments, launcher=()):
    """A real training process, one thread, so that equal work gives equal bits."""
    command = [sys.executable, *launcher, "-m", "subjectiveqe", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def save_told(path, families):
    """Random weights of the recipe's network, told of so many families of codecs."""
    save_net(path, UNet(num_feat=(8, 8, 8), num_block=(1, 1, 1), num_coarseness=families), {})


def test_both_stages_learn_and_leave_a_whole_run_folder(recipe_path, tmp_path):
    # Long enough to be told from chance: 40 steps at a small size.
    changes = ["psnr.steps=40", "psnr.lr=0.003", "gan.steps=8", "gan.precision=bfloat16", "data.workers=0"]
    recipe = read_recipe(recipe_path, changes)
    best = train(recipe, tmp_path / "run")
    assert best == tmp_path / "run" / "gan" / "best.safetensors"
    log = (tmp_path / "run" / "train.log").read_text()
    pix = [float(value) for value in re.findall(r" psnr \d+/40 pix (\S+) ", log)]
    assert np.mean(pix[-10:]) < 0.9 * np.mean(pix[:5])
    assert "gan 8 valid PSNR" in log
    _, header = load_net(best)
    assert (header["recipe"], header["stage"], header["recipe_sha256"]) == ("small", "gan", recipe.sha256)
    assert float(header["valid_lpips"]) > 0
    assert json.loads((tmp_path / "run" / "environment.json").read_text())[0]["torch"] == torch.__version__
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    for stage in ("psnr", "gan"):
        assert list((tmp_path / "run" / "tensorboard" / stage).glob("events*"))


def test_two_runs_of_a_process_keep_their_logs_apart(recipe_path, tmp_path):
    handlers = list(logging.getLogger("subjectiveqe").handlers)
    for name, lr in (("first", "1.0e-3"), ("second", "2.0e-3")):
        changes = ["gan=null", "psnr.steps=1", "valid=null", "data.workers=0", f"psnr.lr={lr}"]
        train(read_recipe(recipe_path, changes), tmp_path / name)
        assert logging.getLogger("subjectiveqe").handlers == handlers
    logs = [(tmp_path / name / "train.log").read_text() for name in ("first", "second")]
    assert [log.count(" psnr 1/1 ") for log in logs] == [1, 1]


def test_the_best_checkpoint_is_the_best_validation(recipe_path, tmp_path):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=12", "valid.every=2", "data.workers=0"])
    best = train(recipe, tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    seen = {int(step): float(db) for step, db in re.findall(r"psnr (\d+) valid PSNR (\S+) dB", log)}
    _, header = load_net(best)
    assert int(header["step"]) == max(seen, key=seen.get)


def test_the_gan_stage_runs_without_its_adversary(recipe_path, tmp_path):
    changes = ["psnr=null", "gan.steps=2", "gan.loss.adv=0", "valid=null", "data.workers=0"]
    train(read_recipe(recipe_path, changes), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "gan 2/2 percep" in log
    assert " adv " not in log


def test_emphasis_tells_the_patches_of_one_store_from_those_of_another(store):
    recipe = {"pairs": [store, store], "emphasis": [3, 0.5], "patch_px": 16, "workers": 0}
    endless = stream(DataConfig.model_validate(recipe), 3, 64, 0, 0, 1, torch.device("cpu"), 0)
    patches = Patches([open_pairs(store)] * 2, 16, seed=3)
    expected = [[3, 0.5][patches[k].number] for k in range(128)]
    assert [*next(endless).emphasis.tolist(), *next(endless).emphasis.tolist()] == expected
    assert 32 < expected.count(3) < 96


def test_no_more_readers_start_than_there_are_cores(store, monkeypatch):
    monkeypatch.setattr(batches, "cpu_count", lambda: 1)
    config = DataConfig.model_validate({"pairs": [store], "patch_px": 16, "workers": 9})
    endless = stream(config, 3, 4, 0, 0, 1, torch.device("cpu"), 0)
    first = next(endless)
    assert len(multiprocessing.active_children()) == 1
    endless.close()
    patches = Patches([open_pairs(store)], 16, seed=3)
    assert torch.equal(first.lq[0], torch.from_numpy(patches[0].lq).permute(2, 0, 1) / 255)


def test_emphasis_weighs_the_perceptual_loss_alone(recipe_path, tmp_path):
    changes = ["psnr=null", "gan.steps=2", "gan.loss.adv=0", "valid=null", "data.workers=0"]
    weights = []
    for percep, emphasis in ((1, []), (0.25, [4]), (1, [4])):
        shares = [f"gan.loss.percep={percep}", f"data.emphasis={emphasis}"]
        run = train(read_recipe(recipe_path, [*changes, *shares]), tmp_path / str(len(weights)))
        weights.append(load_file(run))
    plain, same, other = weights
    assert all(torch.allclose(plain[key], same[key], atol=1e-6) for key in plain)
    assert not all(torch.allclose(plain[key], other[key], atol=1e-6) for key in plain)


@pytest.mark.parametrize("has_it", [True, False])
def test_who_would_train_slowly_in_bfloat16_is_told(recipe_path, tmp_path, monkeypatch, has_it):
    known = {"architecture": "x86_64", "avx512_bf16": has_it, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    changes = ["psnr.steps=1", "gan.steps=1", "gan.precision=bfloat16", "gan.loss.percep=0"]
    train(read_recipe(recipe_path, [*changes, "valid=null", "data.workers=0"]), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert ("--set gan.precision=float32" in log) is not has_it
    assert "--set psnr.precision" not in log


def test_one_network_learns_the_whole_dial(recipe_path, tmp_path):
    ends = ["gan.loss={pix: 0.0, grid: 0.1, adv: 0.01}", "gan.faithful_loss={pix: 4.0, grid: 0.3}"]
    recipe = read_recipe(recipe_path, [*ends, "psnr=null", "valid=null", "data.workers=0", "gan.steps=30"])
    half = recipe.gan.at(0.25)
    assert half.strength == 0.25
    assert (half.loss.pix, half.loss.grid, half.loss.adv) == pytest.approx((3.0, 0.25, 0.0025))
    _, header = load_net(train(recipe, tmp_path / "run"))
    assert "trained_at" not in header
    log = (tmp_path / "run" / "train.log").read_text()
    adversarial = [float(value) for value in re.findall(r"adv (\S+)", log)]
    assert len(adversarial) == 30
    assert min(adversarial) == 0 < max(adversarial)
    strengths = [at_step(recipe.gan, torch.Generator().manual_seed(k)).strength for k in range(400)]
    assert 0.2 < strengths.count(0.0) / 400 < 0.3
    assert 0.2 < strengths.count(1.0) / 400 < 0.3


def test_a_network_learns_to_estimate_and_to_listen(recipe_path, tmp_path):
    common = ["valid=null", "data.workers=0", "gan.loss.adv=0", "net_g.hparams.num_coarseness=2"]
    recipe = read_recipe(recipe_path, ["gan.loss.estimate=0.1", "psnr.loss.estimate=0.1", *common])
    net, _ = load_net(train(recipe, tmp_path / "run"))
    log = (tmp_path / "run" / "train.log").read_text()
    first, *_, last = (float(value) for value in re.findall(r"estimate (\S+)", log))
    assert last < first
    assert net.tell.say.weight.abs().max() > 0


def test_a_gate_is_trained_on_its_own(recipe_path, tmp_path):
    common = ["valid=null", "data.workers=0"]
    first = train(read_recipe(recipe_path, ["gan=null", "psnr.steps=2", *common]), tmp_path / "first")
    gated = [
        "psnr=null",
        "gan.steps=3",
        "gan.loss.adv=0",
        "gan.loss.harm=1",
        "gan.only=gate",
        "net_g.hparams.gate=true",
    ]
    last = train(read_recipe(recipe_path, [*gated, *common]), tmp_path / "last", init_from=first)
    (before, _), (after, header) = load_net(first), load_net(last)
    assert json.loads(header["hparams"])["gate"] is True
    moved = {name for name, w in after.state_dict().items() if not torch.equal(w, before.state_dict().get(name, w * 0))}
    assert moved
    assert all(name.startswith("gate.") for name in moved)
    with pytest.raises(ConfigError, match="the recipe trains unet"):
        train(read_recipe(recipe_path, ["psnr=null", *common]), tmp_path / "back", init_from=last)
    typo = read_recipe(recipe_path, ["psnr=null", "gan.only=gates", *common])
    with pytest.raises(ConfigError, match=r'gan\.only: no parameter of unet begins with "gates"'):
        train(typo, tmp_path / "typo", init_from=first)


def test_the_estimator_can_come_from_elsewhere(recipe_path, tmp_path):
    """From weights for more families, too; the ends of a dial share one estimator so."""
    for name, seed, families in (("net", 1, 2), ("estimator", 2, 4)):
        torch.manual_seed(seed)
        save_told(tmp_path / f"{name}.safetensors", families)
    common = ["gan=null", "valid=null", "data.workers=0", "psnr.steps=1"]
    told = read_recipe(recipe_path, [*common, "net_g.hparams.num_coarseness=4"])
    ends = {"init_from": tmp_path / "net.safetensors", "estimator_from": tmp_path / "estimator.safetensors"}
    (after, _), (net, _), (other, _) = (load_net(p) for p in (train(told, tmp_path / "run", **ends), *ends.values()))
    theirs, ours, own = other.estimator.state_dict(), after.estimator.state_dict(), net.estimator.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not torch.equal(ours["look.0.weight"], own["look.0.weight"])
    assert torch.allclose(after.head.weight, net.head.weight, atol=0.01)
    assert f"psnr: with the estimator of {ends['estimator_from']}" in (tmp_path / "run" / "train.log").read_text()

    save_told(tmp_path / "none.safetensors", 0)
    with pytest.raises(ConfigError, match=r"none\.safetensors: holds no estimator of coarseness"):
        train(told, tmp_path / "none", estimator_from=tmp_path / "none.safetensors")


def test_an_estimator_that_is_only_asked_stays_as_it_is(recipe_path, tmp_path, draw_image):
    """Of pictures from an unknown codec the network asks its own estimator."""
    first = tmp_path / "first.safetensors"
    torch.manual_seed(0)
    save_told(first, 2)
    for folder in ("lq", "gt"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        write_png(tmp_path / "pairs" / folder / "a.png", draw_image((80, 80)))
    pairs = f"data.pairs=[{tmp_path / 'pairs'}]"
    told = [pairs, "psnr=null", "gan.steps=3", "valid=null", "data.workers=0", "net_g.hparams.num_coarseness=2"]
    after, _ = load_net(train(read_recipe(recipe_path, told), tmp_path / "run", init_from=first))
    before, _ = load_net(first)
    assert not torch.equal(after.head.weight, before.head.weight)
    for name, weight in before.estimator.state_dict().items():
        assert torch.equal(after.estimator.state_dict()[name], weight), name


@pytest.mark.parametrize("stage", ["psnr", "gan"])
def test_the_seed_recipe_runs_cut_down(store, tmp_path, stage):
    recipe = read_recipe(
        RECIPES / "seed-hevc-qp37.yaml",
        [
            f"data.pairs=[{store}]",
            f"valid.pairs=[{store}]",
            "valid.crop_px=64",
            "valid.max_pictures=1",
            "data.workers=0",
            f"{'gan' if stage == 'psnr' else 'psnr'}=null",
            f"{stage}.steps=2",
            f"{stage}.batch=1",
            *(["gan.loss.percep_weights=random"] if stage == "gan" else []),
        ],
    )
    _, header = load_net(train(recipe, tmp_path / "run"))
    assert (header["net"], header["stage"], header["step"]) == ("rrdb", stage, "2")


HALTING = """
import logging, runpy, sys, time

class Halt(logging.Handler):
    def emit(self, record):
        if "gan 5/12" in record.getMessage():
            time.sleep(600)

logging.getLogger().addHandler(Halt())  # after those of the run, which have written the line by then
sys.argv = sys.argv[2:]
runpy.run_module("subjectiveqe", run_name="__main__")
"""


def test_a_killed_run_resumes_bit_by_bit(recipe_path, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(recipe_path, "--run-dir", whole))

    script = tmp_path / "halting.py"
    script.write_text(HALTING)
    process = start(recipe_path, "--run-dir", cut, launcher=[script])
    log = cut / "train.log"
    deadline = time.monotonic() + 240
    # Step 5 of the gan stage: past the checkpoint of step 3, before that of step 6; workers are reading ahead.
    while not (log.exists() and "gan 5/12" in log.read_text()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    process.stdout.close()

    process = start(recipe_path, "--run-dir", cut, "--resume")
    text = finish(process)
    assert re.search(r"gan: going on from step 3\b", text)
    for name in ("gan/best.safetensors", "gan/last.safetensors", "psnr/best.safetensors"):
        expected, resumed = load_file(whole / name), load_file(cut / name)
        assert all(torch.equal(expected[key], resumed[key]) for key in expected), name
    states = [torch.load(folder / "gan" / "state.pt", weights_only=True) for folder in (whole, cut)]
    assert all(torch.equal(states[0]["d"]["net"][key], states[1]["d"]["net"][key]) for key in states[0]["d"]["net"])


def test_two_processes_equal_one_at_the_same_global_batch(recipe_path, tmp_path):
    # Float32, so that the order of sums is all that differs; the patch discriminator has no batch norm.
    # Plain gradient steps after few updates: Adam's first steps divide by noise where a gradient is near zero.
    changes = ["data.workers=0", "psnr.steps=2", "gan.steps=4", "gan.lr=1e-5", "psnr.lr=1e-5"]
    sets = [word for change in changes for word in ("--set", change)]
    train(read_recipe(recipe_path, changes), tmp_path / "one")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finish(start(recipe_path, "--run-dir", tmp_path / "two", *sets, launcher=launcher))
    one, two = (load_file(tmp_path / run / "gan" / "last.safetensors") for run in ("one", "two"))
    start_net = load_file(tmp_path / "one" / "psnr" / "last.safetensors")
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-5
    assert max((one[key] - start_net[key]).abs().max().item() for key in one) > 2e-5  # the bound says something
    log = (tmp_path / "two" / "train.log").read_text()
    assert log.count("gan 4/4") == 1  # rank 0 alone writes
    again = start(recipe_path, "--run-dir", tmp_path / "two", *sets, launcher=launcher)
    said, _ = again.communicate(timeout=300)
    assert again.returncode
    assert "two: holds a run; add --resume" in said
    assert "error: another process has ended; its own message says why" in said
    assert 'loop.py", line' not in said, "a traceback of ours"


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for number in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert distributed.own_device() == torch.device("cuda", number)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"process 2 of this machine has no GPU; start 2, by --nproc-per-node 2"):
        distributed.own_device()


def test_accumulation_equals_one_large_batch(recipe_path, tmp_path):
    weights = []
    for accumulate in (1, 2):
        changes = ["gan=null", "data.workers=0", "psnr.lr=1e-5", "psnr.loss.border=0", f"psnr.accumulate={accumulate}"]
        weights.append(load_file(train(read_recipe(recipe_path, changes), tmp_path / str(accumulate))))
    assert max((weights[0][key] - weights[1][key]).abs().max().item() for key in weights[0]) < 1e-6


def test_a_run_folder_is_not_overwritten(recipe_path, tmp_path):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=1", "data.workers=0"])
    train(recipe, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run; add --resume"):
        train(recipe, tmp_path / "run")


def test_a_folder_without_a_run_to_go_on_with_is_told(recipe_path, tmp_path, caplog):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=1", "data.workers=0"])
    for resumed, told in (("mistyped", True), ("mistyped", False)):
        caplog.clear()
        train(recipe, tmp_path / resumed, resume=True)
        assert ("holds no run to go on with" in caplog.text) == told


def test_a_run_folder_is_for_one_process_at_a_time(recipe_path, tmp_path):
    words = ["--run-dir", tmp_path / "run", "--set", "gan=null", "--set", "data.workers=0"]
    first = start(recipe_path, *words, "--set", "psnr.steps=100000")
    log = tmp_path / "run" / "train.log"
    while not (log.exists() and "psnr 1/" in log.read_text()):
        assert first.poll() is None
        time.sleep(0.05)
    second = start(recipe_path, *words, "--resume")
    text, _ = second.communicate(timeout=300)
    assert (second.returncode, "another process is training here" in text) == (2, True)
    assert len(text.splitlines()) == 1
    first.kill()
    first.communicate()
    finish(start(recipe_path, *words, "--resume"))


def test_another_recipe_does_not_resume_a_run_but_a_longer_one_does(recipe_path, tmp_path):
    changes = ["gan=null", "psnr.steps=2", "data.workers=0"]
    train(read_recipe(recipe_path, changes), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"its run has another psnr\.betas"):
        train(read_recipe(recipe_path, [*changes, "psnr.betas=[0.8, 0.9]"]), tmp_path / "run", resume=True)
    best = train(read_recipe(recipe_path, [*changes, "psnr.steps=4"]), tmp_path / "run", resume=True)
    assert load_net(best.with_name("last.safetensors"))[1]["step"] == "4"
    noted = tmp_path / "run" / "environment.json"
    assert len(json.loads(noted.read_text())) == 2  # but not of what was refused
    for earlier, count in (('{"torch": "2.0"}', 2), ('[{"torch":', 1)):  # of a version before, and damaged
        noted.write_text(earlier)
        train(read_recipe(recipe_path, [*changes, "psnr.steps=4"]), tmp_path / "run", resume=True)
        assert len(json.loads(noted.read_text())) == count


def test_a_run_goes_on_at_another_learning_rate(recipe_path, tmp_path):
    """Which a run that diverged is told to; the optimizer's state has the old one and must not bring it back."""
    changes = ["gan=null", "psnr.steps=3", "psnr.warmup=0", "psnr.ema=null", "valid=null", "data.workers=0"]
    best = train(read_recipe(recipe_path, [*changes, "psnr.schedule=constant"]), tmp_path / "run")
    before = load_file(best)
    bolder = ["psnr.steps=4", "psnr.lr=1.0e-9", "psnr.lr_d=1.0e-9", "psnr.clip_norm=0.5", "psnr.spike_factor=9"]
    changed = read_recipe(recipe_path, [*changes, "psnr.schedule=constant", *bolder])
    after = load_file(train(changed, tmp_path / "run", resume=True))
    moved = max((before[key] - after[key]).abs().max().item() for key in before)
    assert moved < 1e-6  # an update of Adam's is about as long as the learning rate, which was 1e-3
    assert "psnr 4/4" in (tmp_path / "run" / "train.log").read_text()
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == changed


@pytest.mark.parametrize("term", ["chroma", "ssim"])
def test_terms_of_both_stages(recipe_path, tmp_path, term):
    changes = [f"{stage}.loss={{pix: 0, {term}: 1.0}}" for stage in ("psnr", "gan")]
    train(read_recipe(recipe_path, [*changes, "psnr.steps=1", "gan.steps=1", "log_every=1"]), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert re.search(rf"psnr 1/1 {term} 0\.\d", log)
    assert re.search(rf"gan 1/1 .*{term} 0\.\d", log)


def test_a_run_from_before_a_setting_was_known_resumes(recipe_path, tmp_path):
    changes = ["gan=null", "psnr.steps=2", "data.workers=0"]
    train(read_recipe(recipe_path, changes), tmp_path / "run")
    kept = tmp_path / "run" / "recipe.yaml"
    before, spectrum, after = kept.read_text().partition("    spectrum: 0.0\n")
    assert spectrum
    kept.write_text(before + after)
    train(read_recipe(recipe_path, [*changes, "psnr.steps=3"]), tmp_path / "run", resume=True)


def test_a_run_goes_on_from_what_it_began_with(recipe_path, tmp_path):
    changes = ["gan=null", "psnr.steps=2", "data.workers=0"]
    recipe = read_recipe(recipe_path, changes)
    first = train(recipe, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"gone\.safetensors: no such file of weights"):
        train(recipe, tmp_path / "run", init_from=tmp_path / "gone.safetensors")
    assert not (tmp_path / "run").exists()
    whole = train(recipe, tmp_path / "run", init_from=first)
    kept = json.loads((tmp_path / "run" / "start.json").read_text())
    assert (kept["net"][0], kept["estimator"]) == (str(first.resolve()), None)
    shutil.copytree(tmp_path / "run", tmp_path / "early")
    shutil.rmtree(tmp_path / "early" / "psnr")  # as if it had been stopped before its first checkpoint
    again = train(recipe, tmp_path / "early", resume=True)
    assert all(torch.equal(value, load_file(whole)[key]) for key, value in load_file(again).items())
    with pytest.raises(ConfigError, match=r"first/psnr/best\.safetensors; leave it out"):
        train(recipe, tmp_path / "early", resume=True, init_from=again)
    first.write_bytes(again.read_bytes() + b" ")
    shutil.rmtree(tmp_path / "early" / "psnr")
    with pytest.raises(ConfigError, match="has changed since its run started from it"):
        train(recipe, tmp_path / "early", resume=True)


def test_a_run_goes_on_with_the_pairs_that_it_began_with(recipe_path, draw_store, tmp_path):
    changes = ["gan=null", "data.workers=0", "valid=null"]
    shutil.copytree(draw_store(2, (64, 64)), tmp_path / "store.lmdb")

    def recipe(steps):
        return read_recipe(recipe_path, [*changes, f"psnr.steps={steps}", f"data.pairs=[{tmp_path / 'store.lmdb'}]"])

    train(recipe(1), tmp_path / "run")
    train(recipe(2), tmp_path / "run", resume=True)
    shutil.rmtree(tmp_path / "store.lmdb")
    shutil.copytree(draw_store(3, (64, 64)), tmp_path / "store.lmdb")
    with pytest.raises(ConfigError, match=r"store\.lmdb: holds other pairs than when its run began; bring them back"):
        train(recipe(3), tmp_path / "run", resume=True)
    (tmp_path / "run" / "pairs.json").unlink()  # as of a run begun before there was such a note
    train(recipe(3), tmp_path / "run", resume=True)
    (tmp_path / "run" / "pairs.json").write_text("[1")
    with pytest.raises(ConfigError, match=r"pairs\.json: is damaged; delete it if the pairs are what they were"):
        train(recipe(4), tmp_path / "run", resume=True)


@pytest.mark.parametrize("damaged", ["not JSON", "[1]", "", '{"foo": ["a", "b"]}', '{"net": 3}', '{"net": []}'])
def test_a_damaged_note_of_what_a_run_began_with_is_named(recipe_path, tmp_path, damaged):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=1", "data.workers=0"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "start.json").write_text(damaged)
    with pytest.raises(ConfigError, match=r"start\.json: is damaged; delete it and name again"):
        train(recipe, tmp_path / "run", resume=True)


def test_a_run_that_is_refused_leaves_its_folder_as_it_was(recipe_path, tmp_path):
    changes = ["gan=null", "valid=null", "psnr.steps=1", "data.workers=0"]
    for number, name in enumerate(("first", "other")):
        train(read_recipe(recipe_path, [*changes, f"seed={number}"]), tmp_path / name)
    first, other = (tmp_path / name / "psnr" / "last.safetensors" for name in ("first", "other"))
    train(read_recipe(recipe_path, changes), tmp_path / "run", init_from=first)
    kept = {
        path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file() and path.suffix != ".log"
    }
    assert {path.name for path in kept} == {"recipe.yaml", "environment.json", "start.json", "pairs.json"}
    with pytest.raises(ConfigError, match=r"its run started from .*first"):
        train(read_recipe(recipe_path, [*changes, "psnr.steps=9"]), tmp_path / "run", resume=True, init_from=other)
    assert {path: path.read_bytes() for path in kept} == kept


def test_workers_without_memory_to_share_are_told_in_a_line():
    def fail():
        yield 1
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    with pytest.raises(SubjectiveQEError, match=r"data\.workers: one has failed \(unable .*or --set data\.workers=0"):
        list(batches._told_plainly(fail()))

    def fail_otherwise():
        yield 1
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ...")

    with pytest.raises(RuntimeError, match="Caught RuntimeError"):
        list(batches._told_plainly(fail_otherwise()))


def test_what_a_later_stage_rests_on_does_not_change(recipe_path, tmp_path):
    changes = ["psnr.steps=1", "gan.steps=1", "data.workers=0"]
    train(read_recipe(recipe_path, changes), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"its gan stage has begun, so psnr\.steps stays"):
        train(read_recipe(recipe_path, [*changes, "psnr.steps=2"]), tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"its gan stage has begun, so psnr\.lr stays"):
        train(read_recipe(recipe_path, [*changes, "psnr.lr=0.5"]), tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"its run has another valid\.crop_px \(64, not 40\); keep the recipe and"):
        train(read_recipe(recipe_path, [*changes, "valid.crop_px=40"]), tmp_path / "run", resume=True)


def test_what_a_worker_meets_is_told_in_its_own_words(tmp_path, draw_image):
    for folder in ("lq", "gt"):
        write_png(tmp_path / "pairs" / folder / "a.png", draw_image((80, 80)))
    config = DataConfig(pairs=[tmp_path / "pairs"], patch_px=64, workers=1)
    picture = tmp_path / "pairs" / "lq" / "a.png"
    picture.write_bytes(picture.read_bytes()[:-300])
    with pytest.raises(ImageError, match=r"a\.png: cannot be decoded") as caught:
        next(stream(config, 0, 2, 0, 0, 1, torch.device("cpu"), 0))
    assert "\n" not in str(caught.value)


def test_a_damaged_state_is_named(recipe_path, tmp_path):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=2", "data.workers=0"])
    train(recipe, tmp_path / "run")
    state = tmp_path / "run" / "psnr" / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"state\.pt: no state of this run"):
        train(recipe, tmp_path / "run", resume=True)


def test_training_starts_from_given_weights_of_the_same_network_only(recipe_path, tmp_path):
    recipe = read_recipe(recipe_path, ["gan=null", "psnr.steps=1", "data.workers=0"])
    first = train(recipe, tmp_path / "first")
    again = train(
        read_recipe(recipe_path, ["gan=null", "psnr.steps=1", "psnr.lr=1e-12", "data.workers=0"]),
        tmp_path / "b",
        False,
        first,
    )
    a, b = load_file(first), load_file(again)
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)
    larger = read_recipe(
        recipe_path, ["gan=null", "net_g.hparams.num_feat=[8, 12, 8]", "psnr.steps=1", "data.workers=0"]
    )
    net, _ = load_net(train(larger, tmp_path / "larger", init_from=first))
    assert net.hparams["num_feat"] == [8, 12, 8]
    other = read_recipe(recipe_path, ["gan=null", "net_g.hparams.num_feat=[4, 8, 8]"])
    with pytest.raises(ConfigError, match=r"holds unet .*8, 8, 8.*the recipe trains unet .*4, 8, 8"):
        train(other, tmp_path / "c", init_from=first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.pairs=[gone.lmdb]", r"gone\.lmdb: no such store"),
        ("net_g.kind=unett", 'unknown net_g.kind "unett"; did you mean "unet"'),
        ("net_g.hparams={width: 3}", "unet does not take them"),
        ("gan.loss.percep_kind=vgg19", "vgg19.*sqe weights"),
        ("data.emphasis=[1, 2]", '"data": 2 values of emphasis for 1 pairs; give one for each'),
        ("net_g.hparams={num_feat: [8, 8, 8], num_block: [1, 1]}", "unet does not take them"),
        ("net_d.kind=vgg128", "data.patch_px: .* does not suit net_d"),
        ("net_d.hparams={num_feats: 4}", "patch does not take them"),
        ("gan.loss.grid=1.0", "data.patch_px: .* is no multiple of 8"),
        ("psnr.betas=[0.9, 1.0]", "less than 1"),
        ("valid.crop_px=24", "greater than or equal to 31"),
        ("data.patch_px=500", "none of 6 pairs is 500 px"),
        ("data.patch_px=50", "50 is too small for lpips-alex-randomised, expected 51 or more"),
        ("psnr.loss={spectrum: 1.0}", "16 is too small for spectrum, expected 32 or more"),
        ("psnr.loss={ssim: 1.0}", "16 is too small for ssim, expected 44 or more"),
        ("psnr.faithful_loss={spectrum: 1.0}", "16 is too small for spectrum, expected 32 or more"),
        ("seed=-1", '"seed": Input should be greater than or equal to 0'),
        ("net_g.hparams.num_coarseness=9", r"num_coarseness: 9 is more than there are \(5, hevc, "),
        ("net_g.hparams.num_coarseness=-1", "unet does not take them"),
        ("net_g.hparams={num_feat: [8, 0], num_block: [1, 1]}", r'unet has nothing in "downs\.0\.weight" with them'),
        ("net_g.hparams={num_feat: [], num_block: []}", "unet does not take them"),
        ("net_d.hparams={num_feat: 0}", 'patch has nothing in "convs'),
        ("psnr.only=estimator; net_g.hparams.num_coarseness=2", 'nothing trains "estimator" without "estimate"'),
        (
            "psnr.only=gate; net_g.hparams.gate=true; net_g.hparams.num_coarseness=2; psnr.loss={pix: 0, estimate: 1}",
            'psnr.only: nothing trains "gate" without a loss beside "estimate"',
        ),
        (
            "psnr.only=estimator.beneath; net_g.hparams.num_coarseness=2; psnr.loss={pix: 0, estimate: 1}",
            'nothing trains "estimator.beneath"',
        ),
        ("psnr.only=gates", r'psnr\.only: no parameter of unet begins with "gates"'),
        ("gan=null; data.patch_px=8", "8 is too small for border, expected 9 or more"),
        ("gan.loss.percep=0; data.patch_px=14", "14 does not suit net_d"),
        ("gan.loss.percep_kind=lpips-vgg; data.patch_px=15", "15 is too small for lpips-vgg, expected 16"),
        ("valid.pairs=[SMALL]", r"valid\.pairs: 0\.png has 48x24 px, LPIPS needs 31x31"),
        ("data.pairs=[DAMAGED]", r"damaged\.lmdb/index\.json: damaged header"),
    ],
)
def test_what_would_stop_a_run_is_named_before_its_folder_is_made(
    recipe_path, tmp_path, monkeypatch, draw_image, change, message
):
    monkeypatch.setenv("SUBJECTIVEQE_WEIGHTS", str(tmp_path))
    small = ["data.patch_px=16", "gan=null"] if "spectrum" in change or "ssim" in change else []
    small += ["data.patch_px=60"] if "grid" in change else []
    if "SMALL" in change:
        write_png(tmp_path / "clean" / "0.png", draw_image((24, 48)))
        prepare(tmp_path / "clean", tmp_path / "small.lmdb", "jpeg", [10], jobs=1)
    if "DAMAGED" in change:
        (tmp_path / "damaged.lmdb").mkdir()
        (tmp_path / "damaged.lmdb" / "index.json").write_text("{")
    change = change.replace("SMALL", f"{tmp_path}/small.lmdb").replace("DAMAGED", f"{tmp_path}/damaged.lmdb")
    with pytest.raises(SubjectiveQEError, match=message):
        train(read_recipe(recipe_path, [*change.split("; "), *small, "data.workers=0"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_refused_before_a_folder_is_made(recipe_path, tmp_path):
    save_net(tmp_path / "other.safetensors", UNet(num_feat=(4, 4), num_block=(1, 1)), {})
    with pytest.raises(ConfigError, match=r"other\.safetensors: holds unet .*, the recipe trains unet"):
        train(read_recipe(recipe_path), tmp_path / "run", init_from=tmp_path / "other.safetensors")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("border_px", [9, 10])
def test_the_smallest_patches_hold_a_border_wherever_they_lie(recipe_path, tmp_path, border_px):
    changes = ["gan=null", f"data.patch_px={border_px}", "psnr.batch=64", "valid=null", "data.workers=0"]
    train(read_recipe(recipe_path, changes), tmp_path / "run")
    assert "nan" not in (tmp_path / "run" / "train.log").read_text()


def test_a_folder_without_a_checkpoint_takes_another_recipe(recipe_path, tmp_path):
    run, pairs = tmp_path / "run", tmp_path / "pairs"
    for folder in ("lq", "gt"):
        write_png(pairs / folder / "a.png", np.zeros((80, 80, 3), np.uint8))
    changes = ["gan=null", "psnr.steps=3", "valid=null", "data.workers=0"]
    damaged = read_recipe(recipe_path, [*changes, f"data.pairs=[{pairs}]"])
    (pairs / "lq" / "a.png").write_bytes((pairs / "lq" / "a.png").read_bytes()[:-30])
    first = tmp_path / "first.safetensors"
    save_net(first, UNet(num_feat=(8, 8, 8), num_block=(1, 1, 1)), {})
    with pytest.raises(ImageError, match=r"a\.png: cannot be decoded"):
        train(damaged, run, init_from=first)
    save_net(run / "psnr" / "best.safetensors", UNet(num_feat=(8, 8, 8), num_block=(1, 1, 1)), {"step": "77"})
    with pytest.raises(ConfigError, match=r"its run has another data\.pairs"):
        train(read_recipe(recipe_path, changes), run, resume=True)
    best = train(read_recipe(recipe_path, changes), run)
    assert load_net(best)[1]["step"] == "3"  # what had been left is not taken for the run's own
    assert json.loads((run / "start.json").read_text()) == {"net": None, "estimator": None}
    with pytest.raises(ConfigError, match="holds a run; add --resume"):
        train(read_recipe(recipe_path, changes), run)


def test_a_gradient_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(recipe_path, tmp_path):
    changes = ["gan=null", "data.workers=0", "psnr.steps=3"]
    recipe = read_recipe(recipe_path, changes)
    train(recipe, tmp_path / "run")
    before = (tmp_path / "run" / "psnr" / "state.pt").read_bytes()
    state = torch.load(tmp_path / "run" / "psnr" / "state.pt", weights_only=True)
    state["g"]["net"]["tail.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "run" / "psnr" / "state.pt")
    poisoned = (tmp_path / "run" / "psnr" / "state.pt").read_bytes()
    assert poisoned != before
    message = r"psnr: step 4: the gradient of UNet is nan; --resume goes on from its last checkpoint: give it a lower"
    with pytest.raises(DivergedError, match=message):
        train(read_recipe(recipe_path, [*changes, "psnr.steps=6"]), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "psnr" / "state.pt").read_bytes() == poisoned  # nothing was written over it


def test_a_loss_that_is_no_number_stops_the_run_though_its_gradient_is_one(recipe_path, tmp_path):
    first = tmp_path / "first.safetensors"
    net = UNet(num_feat=(8, 8, 8), num_block=(1, 1, 1))
    net.tail.weight.data.fill_(1e30)  # squares of which are infinite, so that their root's slope is 0
    save_net(first, net, {})
    recipe = read_recipe(recipe_path, ["gan=null", "data.workers=0", "valid=null", "psnr.loss.border=0"])
    with pytest.raises(DivergedError, match="psnr: step 1: the loss is inf; --resume starts the stage anew"):
        train(recipe, tmp_path / "run", init_from=first)


def test_workers_read_picture_files_after_a_validation(recipe_path, tmp_path, draw_image):
    """Which libvips reads in this process as well: forked from it, they would wait for ever."""
    for folder in ("lq", "gt"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
    for name, mode in (("jpeg.jpg", "RGB"), ("gray.png", "L")):
        image = Image.fromarray(draw_image((80, 80)))
        image.save(tmp_path / "pairs" / "gt" / f"{Path(name).stem}.png")
        image.convert(mode).save(tmp_path / "pairs" / "lq" / name)
    sets = f"[{tmp_path / 'pairs'}]"
    changes = ["gan=null", "psnr.steps=2", "data.workers=1", f"data.pairs={sets}", f"valid.pairs={sets}"]
    words = [word for change in changes for word in ("--set", change)]
    process = start(recipe_path, "--run-dir", tmp_path / "run", *words)
    try:
        text, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, text
    assert "psnr 2/2" in text


class StoppedAt:
    """A function that is interrupted at its n-th call."""

    def __init__(self, number, function):
        self.left, self.function = number, function

    def __call__(self, *arguments, **options):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return self.function(*arguments, **options)


def test_what_was_learnt_is_kept_before_a_validation_which_is_made_up_for(recipe_path, tmp_path, monkeypatch):
    changes = ["gan=null", "data.workers=0", "psnr.steps=6", "valid.every=3", "checkpoint_every=3"]
    recipe = read_recipe(recipe_path, changes)
    train(recipe, tmp_path / "whole")

    validate = record.validate
    for number, step in ((1, 3), (2, 6)):  # which validation is stopped, and what had been learnt by then
        monkeypatch.setattr(record, "validate", StoppedAt(number, validate))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", resume=number > 1)
        assert torch.load(tmp_path / "run" / "psnr" / "state.pt", weights_only=True)["step"] == step
    monkeypatch.setattr(record, "validate", validate)
    train(recipe, tmp_path / "run", resume=True)
    logs = [(tmp_path / run / "train.log").read_text() for run in ("whole", "run")]
    verdicts = [re.findall(r"psnr \d+ valid .*", log) for log in logs]
    assert verdicts[0] == verdicts[1]
    assert len(verdicts[0]) == 2
    best = [load_net(tmp_path / run / "psnr" / "best.safetensors")[1]["step"] for run in ("whole", "run")]
    assert best[0] == best[1]


def test_curves_stay_whole_when_a_run_goes_on(recipe_path, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    changes = ["data.workers=0", "valid=null", "psnr.steps=2", "checkpoint_every=2", "gan.loss={pix: 1}"]
    train(read_recipe(recipe_path, [*changes, "gan.steps=2"]), tmp_path / "run")
    train(read_recipe(recipe_path, [*changes, "gan.steps=4"]), tmp_path / "run", resume=True)
    for stage, steps in (("psnr", [1, 2]), ("gan", [1, 2, 3, 4])):
        events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard" / stage))
        events.Reload()
        assert [event.step for event in events.Scalars("train/pix")] == steps


def test_statistics_of_a_frozen_estimator_stay_beside_its_loss(recipe_path, tmp_path):
    told = ["gan=null", "valid=null", "data.workers=0", "net_g.hparams.gate=true", "net_g.hparams.num_coarseness=2"]
    first = train(read_recipe(recipe_path, ["psnr.steps=1", *told]), tmp_path / "first")
    changes = ["psnr.steps=2", "psnr.only=gate", "psnr.loss={pix: 1, estimate: 0.1}", *told]
    last = train(read_recipe(recipe_path, changes), tmp_path / "last", init_from=first)
    (before, _), (after, _) = load_net(first), load_net(last)
    moved = {name for name, w in after.state_dict().items() if not torch.equal(w, before.state_dict()[name])}
    assert moved
    assert all(name.startswith("gate.") for name in moved)


def test_a_network_that_does_not_say_what_it_is_is_named(recipe_path, tmp_path, monkeypatch):
    monkeypatch.setitem(NETS, "mine", lambda: torch.nn.Conv2d(3, 3, 3, padding=1))
    change = ["net_g={kind: mine}", "data.workers=0"]
    with pytest.raises(
        ConfigError,
        match=r"net_g\.kind: mine does not say its hparams, stride_px, receptive_px, uses_strength, num_coarseness;",
    ):
        train(read_recipe(recipe_path, change), tmp_path / "run")


def test_an_estimator_that_learns_at_the_faithful_end_alone_is_in_training(recipe_path):
    changes = ["gan=null", "net_g.hparams.num_coarseness=2", "psnr.faithful_loss={estimate: 1}"]
    recipe = read_recipe(recipe_path, changes)
    state = start_state(recipe, STAGES["psnr"], recipe.psnr, Start(), torch.device("cpu"))
    assert state.g.net.estimator.training


def test_a_run_that_diverges_before_its_first_checkpoint_is_told_to_start_anew(recipe_path, tmp_path):
    first = tmp_path / "first.safetensors"
    net = UNet(num_feat=(8, 8, 8), num_block=(1, 1, 1))
    net.tail.weight.data.fill_(float("nan"))
    save_net(first, net, {})
    recipe = read_recipe(recipe_path, ["gan=null", "data.workers=0", "psnr.steps=3"])
    message = r"psnr: step 1: the gradient of UNet is nan; --resume starts the stage anew: give it a lower psnr\.lr"
    with pytest.raises(DivergedError, match=message):
        train(recipe, tmp_path / "run", init_from=first)
    assert not (tmp_path / "run" / "psnr" / "state.pt").exists()


def learner():
    net = UNet([4, 4], [1, 1])
    return Learner(net, torch.optim.Adam(net.parameters(), lr=1e-3))


def set_gradients(net, value):
    for param in net.parameters():
        param.grad = torch.full_like(param, value)


def test_an_update_whose_gradient_spikes_is_skipped():
    stage, student = StageConfig(steps=1, spike_factor=5.0), learner()
    for step in range(GUARD_AFTER):
        set_gradients(student.net, 1e-3)
        update(student, 1e-4, stage, step)
    before = [param.clone() for param in student.net.parameters()]
    set_gradients(student.net, 1.0)
    update(student, 1e-4, stage, 100)
    assert student.num_skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, student.net.parameters(), strict=True))
    set_gradients(student.net, 2e-3)  # twice the mean is no spike
    update(student, 1e-4, stage, 101)
    assert student.num_skipped == 1
    assert not torch.equal(before[0], next(student.net.parameters()))


def test_first_gradients_of_zero_block_no_updates():
    stage, student = StageConfig(steps=1, spike_factor=5.0), learner()
    for step in range(2 * GUARD_AFTER):
        set_gradients(student.net, 0.0 if step < GUARD_AFTER else 1e-3)
        update(student, 1e-4, stage, step)
    assert student.num_skipped == 0
    assert student.norm_mean > 0


def test_gradients_are_clipped():
    stage, student = StageConfig(steps=1, clip_norm=0.5), learner()
    seen = []
    student.optim.step = lambda: seen.append([param.grad.clone() for param in student.net.parameters()])
    set_gradients(student.net, 1.0)
    norm = update(student, 1e-4, stage, 0)
    assert norm > 0.5
    assert torch.stack([g.square().sum() for g in seen[0]]).sum().sqrt().item() == pytest.approx(0.5, rel=1e-3)


def test_the_average_follows_fast_at_first_and_slowly_later():
    state = TrainState(learner())
    weight, average = next(state.g.net.parameters()), next(state.ema_g.parameters())
    start_value = average.clone()
    with torch.no_grad():
        weight.add_(1.0)
    state.step = 0
    state.follow(0.999)
    assert torch.allclose(average - start_value, torch.full_like(average, 0.9), atol=1e-5)
    state.step = 10**6
    before = average.clone()
    state.follow(0.999)
    assert torch.allclose(average - before, 0.001 * (weight - before), atol=1e-6)
    state.follow(None)
    assert torch.equal(average, weight)


def test_learning_rates_by_hand():
    stage = StageConfig(steps=110, lr=1.0, warmup=10, schedule="cosine", final_lr=0.1, loss=LossConfig())
    assert lr_at(stage, 1.0, 0) == pytest.approx(0.1)
    assert lr_at(stage, 1.0, 9) == pytest.approx(1.0)
    assert lr_at(stage, 1.0, 60) == pytest.approx(0.55)
    assert lr_at(stage, 2.0, 110) == pytest.approx(0.2)
    assert lr_at(StageConfig(steps=5, lr=1.0), 1.0, 4) == 1.0
