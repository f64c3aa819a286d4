"""Recipes are refused with the key and the nearest right one; those that ship are whole."""

from pathlib import Path

import pytest
import yaml

from subjectiveqe.config import read_recipe
from subjectiveqe.errors import ConfigError

RECIPES = Path(__file__).parents[1] / "recipes"
MINIMAL = {"name": "r", "net_g": {"kind": "unet"}, "data": {"pairs": ["s"]}, "psnr": {"steps": 5}}


def write(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_that_ship_are_valid(path):
    assert read_recipe(path).name == path.stem


def test_the_seed_recipe_has_the_seed_numbers():
    recipe = read_recipe(RECIPES / "seed-hevc-qp37.yaml")
    assert recipe.net_g.kind == "rrdb"
    assert recipe.net_d.kind == "vgg128"
    assert (recipe.psnr.steps, recipe.psnr.lr, recipe.psnr.batch) == (400_000, 2e-4, 32)
    assert (recipe.gan.steps, recipe.gan.lr, recipe.gan.batch) == (500_000, 1e-4, 32)
    assert (recipe.gan.loss.pix, recipe.gan.loss.percep, recipe.gan.loss.adv) == (0.01, 1.0, 0.005)
    assert recipe.gan.loss.percep_kind == "vgg19"
    assert recipe.psnr.schedule == recipe.gan.schedule == "constant"
    assert recipe.valid.every == 5000


def test_a_typo_is_named_with_its_file_and_the_nearest_key(tmp_path):
    path = write(tmp_path, {**MINIMAL, "psnr": {"steps": 5, "batchh": 2}})
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert str(caught.value) == f'{path}: unknown key "psnr.batchh"; did you mean "psnr.batch"?'
    with pytest.raises(ConfigError, match=r'unknown key "psnr.loss.zzz"$'):
        read_recipe(path, ["psnr={steps: 5, loss: {zzz: 1}}"])


def test_a_wrong_value_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'"psnr\.steps": Input should be greater than 0'):
        read_recipe(write(tmp_path, {**MINIMAL, "psnr": {"steps": 0}}))


def test_a_recipe_without_a_stage_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing to train"):
        read_recipe(write(tmp_path, {key: value for key, value in MINIMAL.items() if key != "psnr"}))


def test_a_stage_without_a_loss_is_refused(tmp_path):
    """LPIPS and the discriminator are nothing to the psnr stage."""
    psnr = {"steps": 5, "loss": {"pix": 0, "percep": 1}}
    terms = "it takes pix, psnr, chroma, border, spectrum, ssim, estimate"
    with pytest.raises(ConfigError, match=f'stage "psnr" has no loss above 0; {terms}'):
        read_recipe(write(tmp_path, {**MINIMAL, "psnr": psnr}))
    with pytest.raises(ConfigError, match="no loss above 0"):  # at one end of the dial
        read_recipe(write(tmp_path, {**MINIMAL, "psnr": psnr | {"faithful_loss": {"pix": 1}}}))
    assert read_recipe(write(tmp_path, {**MINIMAL, "gan": psnr})).gan


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="batch 8 does not divide into 3"):
        read_recipe(write(tmp_path, {**MINIMAL, "psnr": {"steps": 5, "batch": 8, "accumulate": 3}}))


def test_emphasis_is_of_all_pairs_or_of_none(tmp_path):
    for emphasis in ([1], [1, 2, 3]):
        with pytest.raises(ConfigError, match=rf"{len(emphasis)} values of emphasis for 2 pairs; give one for each"):
            read_recipe(write(tmp_path, {**MINIMAL, "data": {"pairs": ["s", "t"], "emphasis": emphasis}}))


def test_the_faithful_end_has_no_judge_of_its_own(tmp_path):
    gan = {"steps": 5, "loss": {"adv": 0.1}, "faithful_loss": {"adv": 0.1, "percep": 0.1}}
    with pytest.raises(ConfigError, match=r"faithful_loss\.percep is above 0 and loss\.percep is not"):
        read_recipe(write(tmp_path, {**MINIMAL, "gan": gan}))


@pytest.mark.parametrize(("name", "value"), [("percep_kind", "vgg16"), ("percep_weights", "random")])
def test_both_ends_of_the_dial_have_one_judge(tmp_path, name, value):
    loss = {"percep": 1.0, "percep_kind": "lpips-vgg"}
    gan = {"steps": 5, "loss": loss, "faithful_loss": {"percep": 0.5, name: value}}
    with pytest.raises(ConfigError, match=rf"faithful_loss\.{name} is another than loss\.{name}"):
        read_recipe(write(tmp_path, {**MINIMAL, "gan": gan}))
    gan["faithful_loss"] = {"percep": 0.5, "percep_kind": "lpips-vgg"}
    assert read_recipe(write(tmp_path, {**MINIMAL, "gan": gan})).gan


def test_stages_may_share_what_they_have_in_common(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "name: a\nnet_g: {kind: unet}\ndata: {pairs: [a]}\n"
        "psnr: &common {steps: 7, batch: 4, lr: 1.0e-3}\ngan: {<<: *common, lr: 1.0e-4}\n"
    )
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert (recipe.gan.steps, recipe.gan.batch, recipe.gan.lr, recipe.psnr.lr) == (7, 4, 1e-4, 1e-3)


@pytest.mark.parametrize("text", ["", "- a", "name: [", "\x00"])
def test_files_that_are_no_recipes_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"r\.yaml: "):
        read_recipe(write(tmp_path, text))


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_recipe(tmp_path / "none.yaml")


def test_overrides_reach_nested_keys(tmp_path):
    recipe = read_recipe(write(tmp_path, MINIMAL), ["psnr.loss.border=0.5", "data.pairs=[a, b]", "gan.steps=3"])
    assert recipe.psnr.loss.border == 0.5
    assert recipe.data.pairs == [Path("a"), Path("b")]
    assert recipe.gan.steps == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("psnr.steps", "expected key=value"),
        ("name.x=1", '"name" holds a value, not a section'),
        ("psnr.stepps=1", 'did you mean "psnr.steps"'),
        ("psnr={stepps: 1}", 'did you mean "psnr.steps"'),  # which is missing then
        ("name=[", "not a YAML value"),
    ],
)
def test_bad_overrides_are_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, MINIMAL), [override])


def test_the_fingerprint_follows_the_values(tmp_path):
    path = write(tmp_path, MINIMAL)
    assert read_recipe(path).sha256 == read_recipe(path).sha256
    assert read_recipe(path).sha256 != read_recipe(path, ["seed=1"]).sha256
    assert read_recipe(path).sha256 == read_recipe(path, ["metadata={licence: CC0-1.0}"]).sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pix: 1.0, percep: 1.0", 'stage "psnr" does not take the loss "percep"'),
        ("pix: 1.0, harm: 1.0", 'the loss "harm" weighs "percep", which is 0'),
        ("pix: 1.0, estimate: 1.0", 'the loss "estimate" needs net_g'),
        ("pix: 1.0, pix: 2.0", 'the key "pix" is given twice'),
    ],
)
def test_what_would_do_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(
        "name: a\nnet_g: {kind: unet}\ndata: {pairs: [a]}\npsnr: {steps: 1, loss: {" + text + "}}\n"
    )
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.yaml")
