"""Networks. Each family is one explicit dict from the name in a recipe or file header to the class."""

from __future__ import annotations

from torch import nn

from .discriminator import VGG128, PatchDiscriminator
from .esrgan import ESRGAN
from .rrdb import RRDBNet
from .unet import UNet

NETS: dict[str, type[nn.Module]] = {"unet": UNet, "rrdb": RRDBNet, "esrgan": ESRGAN}
DISCRIMINATORS: dict[str, type[nn.Module]] = {"patch": PatchDiscriminator, "vgg128": VGG128}
