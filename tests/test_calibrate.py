"""Fitting an estimator to whole pictures: what gets better, what stays, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from subjectiveqe import calibrate  # noqa: E402
from subjectiveqe.calibrate import calibrate_estimator  # noqa: E402
from subjectiveqe.codecs.coarseness import coarseness  # noqa: E402
from subjectiveqe.data.again import SavedAgain  # noqa: E402
from subjectiveqe.data.prepare import prepare  # noqa: E402
from subjectiveqe.errors import ConfigError, ModelError  # noqa: E402
from subjectiveqe.images import write_png  # noqa: E402
from subjectiveqe.nets import UNet  # noqa: E402
from subjectiveqe.nets.checkpoint import load_net, read_safetensors, save_net  # noqa: E402


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, draw_image):
    folder = tmp_path_factory.mktemp("calibrate")
    for seed in range(4):
        write_png(folder / "clean" / f"{seed}.png", draw_image((240, 420), seed))
    write_png(folder / "clean" / "small.png", draw_image((200, 420)))
    for codec in ("jpeg", "resaved"):  # nobody knows how coarse what was saved twice is
        prepare(folder / "clean", folder / f"{codec}.lmdb", codec, [10, 50, 90], jobs=1)
    return [folder / "jpeg.lmdb", folder / "resaved.lmdb"]


def save_ends(folder, seeds=(0, 0), num_coarseness=2):
    """Two networks, with one estimator if their seeds are the same."""
    paths = []
    for name, seed in zip(("pleasing", "faithful"), seeds, strict=True):
        torch.manual_seed(seed)
        net = UNet(num_feat=(4, 8), num_block=(1, 1), num_coarseness=num_coarseness)
        with torch.no_grad():
            net.tail.weight.mul_(2 if name == "faithful" else 1)
        paths.append(folder / f"{name}.safetensors")
        save_net(paths[-1], net, {"recipe": name}, half=True)
    return paths


def test_estimates_become_right_and_nothing_else_changes(tmp_path, pairs, monkeypatch):
    monkeypatch.setattr(calibrate, "_SURFACE", calibrate._SURFACE._replace(steps=300))
    ends, seen = save_ends(tmp_path), []
    errors = calibrate_estimator(
        ends, pairs, tmp_path / "out", valid=pairs[:1], progress=lambda *state: seen.append(state)
    )
    assert list(errors) == [("jpeg.lmdb", 10), ("jpeg.lmdb", 50), ("jpeg.lmdb", 90)]
    for before, after in errors.values():
        assert before > 0.2
        assert after < 0.1
    assert seen == [(done, 45) for done in range(1, 46)]
    states = [read_safetensors(tmp_path / "out" / path.name) for path in ends]
    for path, (state, header) in zip(ends, states, strict=True):
        before = read_safetensors(path)[0]
        changed = {key for key, value in state.items() if not torch.equal(value, before[key])}
        assert changed == {f"estimator.think.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")}
        assert all(torch.equal(state[key], states[0][0][key]) for key in changed)
        assert (header["recipe"], header["estimator"]) == (path.stem, "fitted to 12 pictures")
        assert (tmp_path / "out" / path.name).stat().st_size < 1.05 * path.stat().st_size  # both in float16


def test_what_lies_beneath_a_fine_jpeg_is_learnt_and_nothing_else_changes(tmp_path, pairs, monkeypatch):
    monkeypatch.setattr(calibrate, "_BENEATH", calibrate._BENEATH._replace(steps=300))
    ends, seen = save_ends(tmp_path), []
    errors = calibrate_estimator(
        ends, pairs[:1] * 20, tmp_path / "out", pairs[:1] * 4, lambda *state: seen.append(state), beneath=True
    )
    assert {kind for kind, _ in errors} == {"jpeg 420", "jpeg 420 scaled", "originals"}
    before, after = errors["jpeg 420", 10]
    assert before == pytest.approx(1.02, abs=0.01)  # nothing was said
    assert after < 0.7
    assert errors["originals", 0][1] < 0.4
    assert seen == [(done, 360) for done in range(1, 361)]
    for path in ends:
        state, header = read_safetensors(tmp_path / "out" / path.name)
        before = read_safetensors(path)[0]
        changed = {key for key, value in state.items() if not torch.equal(value, before[key])}
        assert changed == {f"estimator.beneath.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")}
        assert "estimator" not in header
        assert int(header["beneath"].split()[2]) > 50


def test_what_is_said_beneath_is_how_coarse_and_how_likely():
    """Of two families: to be off, and to doubt, costs as it should; what is finer than the JPEG counts as nothing."""
    sure, doubt = torch.tensor([[0.4, 0.9, 9.0, -9.0]]), torch.tensor([[0.4, 0.9, 0.0, 0.0]])
    truth, nothing = torch.tensor([[0.4, 0.0]]), torch.zeros(1, 2)
    assert calibrate._loss_beneath(sure, truth).item() == pytest.approx(0, abs=1e-3)
    assert calibrate._loss_beneath(sure, nothing).item() == pytest.approx(9, abs=1e-3)
    assert calibrate._loss_beneath(doubt, truth).item() == pytest.approx(np.log(3), abs=1e-3)
    off = torch.tensor([[0.7, 0.9, 9.0, -9.0]])
    assert calibrate._loss_beneath(off, truth).item() == pytest.approx(8 * 0.3**2, abs=1e-3)
    assert calibrate._told_beneath(doubt).tolist() == [pytest.approx([0.4 / 3, 0.3])]


@pytest.mark.parametrize(("qf", "counts"), [(10, True), (95, False)])
def test_what_is_finer_than_the_jpeg_counts_as_nothing(draw_image, qf, counts):
    estimator = UNet(num_feat=(4, 8), num_block=(1, 1), num_coarseness=2).eval().estimator
    with torch.no_grad():
        for param in estimator.think.parameters():
            param.zero_()
        estimator.think[-1].bias[1] = 0.5  # a JPEG of QF 85 or so, whatever it sees
    truth = coarseness("jpeg", qf, 2)
    _, told, _ = calibrate._see_beneath(estimator, SavedAgain(draw_image((240, 240)), truth, ("jpeg", qf)))
    assert told.tolist() == pytest.approx(truth if counts else (0, 0))


@pytest.mark.parametrize("has_other", [False, True])
def test_checkpoints_from_before_say_nothing_of_what_lies_beneath(tmp_path, has_other):
    """Older ones asked fewer features, or none."""
    [end, _] = save_ends(tmp_path)
    state, header = read_safetensors(end)
    older = {key: value for key, value in state.items() if not key.startswith("estimator.beneath.")}
    assert len(older) == len(state) - 6
    if has_other:
        older |= {"estimator.beneath.0.weight": torch.ones(128, 192), "estimator.beneath.0.bias": torch.ones(128)}
    save_file(older, end, header)
    net, _ = load_net(end)
    assert not net.estimate(torch.rand(1, 3, 40, 48))[:, 2].any()


def test_what_is_fitted_is_what_the_network_estimates(tmp_path, pairs, monkeypatch):
    """The features of patches that are put together here are those that the network makes of all of them at once."""
    monkeypatch.setattr(calibrate, "_SURFACE", calibrate._SURFACE._replace(steps=1))
    [end, _] = save_ends(tmp_path)
    calibrate_estimator([end], pairs, tmp_path / "out")
    net, _ = load_net(tmp_path / "out" / end.name)
    patches = torch.rand(3, 3, 192, 192)
    with torch.inference_mode():
        features, there = net.estimator.seen(patches)[None], torch.ones(1, 3)
        surface = net.estimator.think(calibrate._together(net.estimator.last(features), there))
        beneath = net.estimator.beneath(calibrate._together(features, there))
        fitted = torch.cat((surface, beneath), 1).view(1, 4, 2)
        assert torch.allclose(fitted, net.estimate(patches, of_one_picture=True), atol=1e-5)


def test_other_networks_and_useless_pairs_are_refused(tmp_path, pairs):
    with pytest.raises(ModelError, match=r"faithful.safetensors: holds another estimator than .*pleasing.safetensors"):
        calibrate_estimator(save_ends(tmp_path, seeds=(0, 1)), pairs, tmp_path / "out")
    with pytest.raises(ModelError, match=r"pleasing.safetensors: is not told of JPEG, beneath which"):
        calibrate_estimator(save_ends(tmp_path, num_coarseness=1), pairs, tmp_path / "out", beneath=True)
    with pytest.raises(ModelError, match=r"pleasing.safetensors: its network has no estimator; train one with"):
        calibrate_estimator(save_ends(tmp_path, num_coarseness=0), pairs, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"resaved.lmdb: no picture of at least 208x208 px that was compressed once"):
        calibrate_estimator(save_ends(tmp_path), pairs[1:], tmp_path / "out")
    [told, told_more] = [*save_ends(tmp_path / "a")[:1], *save_ends(tmp_path / "b", num_coarseness=5)[1:]]
    with pytest.raises(ModelError, match=r"faithful.safetensors: estimates 5 families, .*pleasing.safetensors 2"):
        calibrate_estimator([told, told_more], pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_picture_is_not_enough(tmp_path, draw_image):
    write_png(tmp_path / "clean" / "a.png", draw_image((240, 240)))
    prepare(tmp_path / "clean", tmp_path / "one.lmdb", "jpeg", [50], jobs=1)
    with pytest.raises(ConfigError, match=r"one\.lmdb: one picture of 1 can be used, which is not enough to fit to"):
        calibrate_estimator(save_ends(tmp_path), [tmp_path / "one.lmdb"], tmp_path / "out")


def test_the_smallest_pictures_count_wherever_they_are_cut(tmp_path, draw_image, monkeypatch):
    monkeypatch.setattr(calibrate, "_SURFACE", calibrate._SURFACE._replace(steps=1))
    monkeypatch.setattr(calibrate, "_ANYWHERE", 1.0)
    for seed in range(6):
        write_png(tmp_path / "clean" / f"{seed}.png", draw_image((208, 208), seed))
    prepare(tmp_path / "clean", tmp_path / "a.lmdb", "jpeg", [50], jobs=1)
    [end, _] = save_ends(tmp_path)
    calibrate_estimator([end], [tmp_path / "a.lmdb"], tmp_path / "out")
    assert read_safetensors(tmp_path / "out" / end.name)[1]["estimator"] == "fitted to 6 pictures"


def test_an_output_that_is_a_file_is_told_before_the_work(tmp_path, pairs):
    """It would fail when all is done."""
    (tmp_path / "out").write_text("mine")
    seen = []
    with pytest.raises(ConfigError, match=r"out: is a file, expected a folder or a new name; choose another --out"):
        calibrate_estimator(save_ends(tmp_path), pairs, tmp_path / "out", progress=lambda *state: seen.append(state))
    with pytest.raises(OSError, match="out"):
        calibrate_estimator(
            save_ends(tmp_path), pairs, tmp_path / "out" / "in", progress=lambda *state: seen.append(state)
        )
    assert (seen, (tmp_path / "out").read_text()) == ([], "mine")


def test_a_folder_that_was_there_stays_when_the_work_fails(tmp_path, pairs):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="no picture of at least"):
        calibrate_estimator(save_ends(tmp_path), pairs[1:], tmp_path / "out")
    assert (tmp_path / "out").is_dir()


def test_stores_to_measure_by_have_names_of_their_own(tmp_path, pairs):
    with pytest.raises(ConfigError, match=r'another of --valid is called "a\.lmdb" too'):
        calibrate_estimator(save_ends(tmp_path), pairs, tmp_path / "out", [tmp_path / "a.lmdb", tmp_path / "b/a.lmdb"])


def test_no_checkpoint_is_written_over(tmp_path, pairs):
    ends = save_ends(tmp_path / "a") + save_ends(tmp_path / "b")
    before = ends[0].read_bytes()
    with pytest.raises(ConfigError, match="two of the checkpoints would become it"):
        calibrate_estimator([ends[0], ends[2]], pairs, tmp_path / "out")
    with pytest.raises(ConfigError, match="is there already; choose another --out"):
        calibrate_estimator(ends[:2], pairs, tmp_path / "a")
    assert ends[0].read_bytes() == before
    assert not (tmp_path / "out").exists()
