"""Recipes: everything a training run depends on, as one validated model read from YAML."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from .errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetConfig(Section):
    """A network by name and its hyper-parameters, e.g. `{kind: unet, hparams: {num_feat: [32, 64, 128]}}`."""

    kind: str = Field(description="`unet`, `rrdb` or `esrgan`; a discriminator is `patch` or `vgg128`")
    hparams: dict[str, Any] = Field(
        default={}, description="arguments of its class; what is left out is the default there"
    )


class DataConfig(Section):
    """Where patches come from."""

    pairs: list[Path] = Field(min_length=1, description="stores or paired folders, drawn from alike pair by pair")
    emphasis: list[Weight] = Field(
        default=[], description="how much percep counts for patches of each of pairs; 1 for all when left out"
    )
    patch_px: PositiveInt = Field(default=128, description="side of the patches that are cut out")
    aligned: Share = Field(default=0.0, description="share of the patches whose corner lies on the codec's 16-px grid")
    coarseness_noise: Weight = Field(
        default=0.0,
        description="standard deviation of what is added to the coarseness; networks will be told an estimate of it",
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        default=2, description="processes that read patches, one a core at most; 0: none beside"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> DataConfig:
        if self.emphasis and len(self.emphasis) != len(self.pairs):
            raise ValueError(f"{len(self.emphasis)} values of emphasis for {len(self.pairs)} pairs; give one for each")
        return self


class ValidConfig(Section):
    """What the best checkpoint is chosen by: PSNR in the psnr stage, LPIPS in the gan stage."""

    pairs: list[Path] = Field(min_length=1, description="stores or paired folders, of pictures held out")
    every: PositiveInt = Field(default=5000, description="steps between two looks")
    crop_px: Annotated[int, Field(ge=31)] | None = Field(  # which LPIPS takes at least
        default=None, description="centre crop of each picture; whole pictures when left out"
    )
    max_pictures: PositiveInt | None = Field(
        default=None, description="evenly spread over the pairs; all when left out"
    )


class LossConfig(Section):
    """Weights of the losses; one that is 0 costs nothing."""

    pix: Weight = Field(default=1.0, description="Charbonnier distance of pixels")
    psnr: Weight = Field(default=0.0, description="PSNR in dB, negative: the same for fine pictures as for coarse ones")
    chroma: Weight = Field(default=0.0, description="Cb and Cr of pixels, beside all three colours in pix")
    border: Weight = Field(default=0.0, description="steps at the codec's block borders")
    grid: Weight = Field(default=0.0, description="a regular pattern of the network's own; gan stage")
    spectrum: Weight = Field(default=0.0, description="how much texture of each kind there is, wherever it lies")
    ssim: Weight = Field(default=0.0, description="structural similarity of luma: that texture lies where it belongs")
    percep: Weight = Field(default=0.0, description="distance of features, by percep_kind; gan stage")
    adv: Weight = Field(default=0.0, description="what the discriminator says (relativistic average); gan stage")
    estimate: Weight = Field(
        default=0.0, description="how well the network estimates the coarseness of its input, where it is told one"
    )
    too_coarse: PositiveFloat = Field(
        default=1.0, description="how much more estimate counts what is taken for coarser than it is"
    )
    balance: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.0,
        description="how far pix, psnr, chroma, spectrum, ssim, percep even out coarse and fine levels; 0: all alike",
    )
    harm: Weight = Field(
        default=0.0,
        description="how much more percep counts, relative to the input's, where the output is the worse one",
    )
    percep_kind: Literal["vgg19", "vgg16", "lpips-vgg", "lpips-alex-randomised"] = Field(
        default="vgg19", description="whose features; the last looks at copies that are shifted, flipped and rescaled"
    )
    percep_weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random is for tries without the weights"
    )


PIXEL_TERMS = ("pix", "psnr", "chroma", "border", "spectrum", "ssim")
"""Losses of both stages on what the generator makes; `estimate` is of both too, on what it says of its input."""

GAN_TERMS = ("grid", "percep", "adv")
"""Losses of the second stage alone. `harm` is none of its own, but weighs `percep`."""


class StageConfig(Section):
    """One stage of training; `batch` is the global one, shared out over processes and accumulation steps."""

    steps: PositiveInt = Field(description="updates of the generator")
    batch: PositiveInt = Field(default=32, description="patches a step, of all processes together")
    accumulate: PositiveInt = Field(
        default=1,
        description="parts that a batch is worked on in, which saves memory; adv and estimate take their averages over "
        "each part, so that with more than 1 they are not quite the losses of the whole batch",
    )
    lr: PositiveFloat = Field(default=2e-4, description="learning rate of the generator")
    lr_d: PositiveFloat | None = Field(
        default=None, description="learning rate of the discriminator; that of G when left out"
    )
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="of Adam")
    warmup: Annotated[int, Field(ge=0)] = Field(
        default=0, description="steps over which the learning rate rises from 0"
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="how the learning rate goes on after the warmup"
    )
    final_lr: Share = Field(default=0.01, description="where the cosine ends, as a share of lr")
    clip_norm: PositiveFloat | None = Field(
        default=None, description="largest gradient norm; longer gradients are shortened"
    )
    spike_factor: PositiveFloat | None = Field(
        None, description="skip updates whose gradient norm is this many times its running mean"
    )
    ema: Share | None = Field(
        default=None, description="decay of the averaged generator; the last one is kept when left out"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16 is autocast, and pays where the processor has instructions for it"
    )
    strength: Share = Field(
        default=1.0, description="the dial position this stage stands for, for networks that take one"
    )
    only: str | None = Field(
        default=None, description="train only the parameters of G whose names begin so, e.g. gate; all when left out"
    )
    loss: LossConfig = Field(default=LossConfig(), description="weights of the losses")
    faithful_loss: LossConfig | None = Field(
        default=None,
        description="losses at strength 0, those of `loss` being for 1: every step draws a strength and mixes the two",
    )

    @property
    def losses(self) -> list[LossConfig]:
        """Those of the pleasing end and, where it has its own, of the faithful one."""
        return [self.loss] if self.faithful_loss is None else [self.loss, self.faithful_loss]

    def at(self, strength: float) -> StageConfig:
        """The stage as it is for one strength, its losses between those of both ends of the dial."""
        ends = (self.faithful_loss or self.loss).model_dump(), self.loss.model_dump()
        mixed = {
            name: (1 - strength) * ends[0][name] + strength * value if isinstance(value, float) else value
            for name, value in ends[1].items()
        }
        return self.model_copy(update={"strength": strength, "loss": LossConfig.model_validate(mixed)})

    @model_validator(mode="after")
    def _fits_together(self) -> StageConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} does not divide into {self.accumulate} accumulation steps")
        for name in ("percep", "adv"):
            if self.faithful_loss and getattr(self.faithful_loss, name) and not getattr(self.loss, name):
                raise ValueError(
                    f"faithful_loss.{name} is above 0 and loss.{name} is not; a network that judges serves both"
                )
        for name in ("percep_kind", "percep_weights"):
            told = self.faithful_loss and name in self.faithful_loss.model_fields_set
            if told and getattr(self.faithful_loss, name) != getattr(self.loss, name):
                raise ValueError(f"faithful_loss.{name} is another than loss.{name}; one network judges for both")
        return self


class Recipe(Section):
    """A whole training run: stage psnr, then stage gan from its best weights; either may be left out."""

    name: str = Field(description="of the run, and of its folder in runs/")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=0, description="of all that is drawn")
    net_g: NetConfig = Field(description="the generator")
    net_d: NetConfig = Field(default=NetConfig(kind="patch"), description="the discriminator, for `adv`")
    data: DataConfig = Field(description="patches to train on")
    valid: ValidConfig | None = Field(default=None, description="pictures to choose the best checkpoint by")
    psnr: StageConfig | None = Field(default=None, description="the first stage")
    gan: StageConfig | None = Field(default=None, description="the second stage, from the best weights of the first")
    log_every: PositiveInt = Field(default=100, description="steps between two lines of the log")
    checkpoint_every: PositiveInt = Field(default=1000, description="steps between two checkpoints, for --resume")
    metadata: dict[str, str] = Field(
        default={}, description="goes into the header of the weights: licence, trained_on, ..."
    )

    @model_validator(mode="after")
    def _trains_something(self) -> Recipe:
        if not self.stages:
            raise ValueError('neither stage "psnr" nor stage "gan" is there; nothing to train')
        for name, stage in self.stages.items():
            terms = (*PIXEL_TERMS, "estimate", *(GAN_TERMS if name == "gan" else ()))
            for loss in stage.losses:
                if not any(getattr(loss, term) for term in terms):
                    raise ValueError(f'stage "{name}" has no loss above 0; it takes {", ".join(terms)}')
                if loss.harm and not loss.percep:
                    raise ValueError(f'stage "{name}": the loss "harm" weighs "percep", which is 0')
                if loss.estimate and not self.net_g.hparams.get("num_coarseness"):
                    raise ValueError(f'stage "{name}": the loss "estimate" needs net_g.hparams.num_coarseness')
                for term in GAN_TERMS if name == "psnr" else ():
                    if getattr(loss, term):
                        raise ValueError(f'stage "psnr" does not take the loss "{term}"; use it in stage "gan"')
        return self

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The stages that it has, by name, in the order they are trained in."""
        both = {"psnr": self.psnr, "gan": self.gan}
        return {name: stage for name, stage in both.items() if stage is not None}

    @property
    def sha256(self) -> str:
        """Fingerprint of all values but the metadata, defaults included."""
        return hashlib.sha256(self.model_dump_json(exclude={"metadata"}).encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"  # "<<", which takes the keys of another mapping
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise yaml.constructor.ConstructorError(None, None, f'the key "{twice[0]}" is given twice', node.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: a YAML file.
        overrides: "key=value" with dotted keys, e.g. "gan.steps=10"; values are YAML.
    Raises:
        ConfigError: names the file, the key and, for a typo, the nearest key.
    """
    content = _read_yaml(path)
    for override in overrides:
        _override(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from None


def read_card(path: Path) -> dict[str, str]:
    """Reads what a model file is to say of itself: a YAML file of names and texts; ConfigError for any other."""
    content = _read_yaml(path)
    if other := [name for name, text in content.items() if not (isinstance(name, str) and isinstance(text, str))]:
        raise ConfigError(f'{path}: "{other[0]}": expected a name and its text')
    return content


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def _override(content: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override}: expected key=value, e.g. gan.steps=1000")
    *parents, last = dotted.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ConfigError(f'--set {override}: "{parent}" holds a value, not a section')
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f'--set {override}: "{text}" is not a YAML value') from None


def _first_problem(error: ValidationError) -> str:
    # What is unknown before what is missing, which it may be meant for.
    problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        where = f'"{place}": ' if place else ""
        return f"{where}{problem['msg'].removeprefix('Value error, ')}"
    *parents, key = problem["loc"]
    near = difflib.get_close_matches(str(key), _keys_at([str(part) for part in parents]), n=1)
    hint = f'; did you mean "{".".join([*map(str, parents), near[0]])}"?' if near else ""
    return f'unknown key "{place}"{hint}'


def _keys_at(parents: Sequence[str]) -> list[str]:
    """The keys that the section at this place knows."""
    section: type[BaseModel] = Recipe
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)
