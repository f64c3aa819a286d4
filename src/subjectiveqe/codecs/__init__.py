"""Codecs behind one interface: level in, decoded picture and exact byte count out."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import ConfigError, unknown
from .base import Codec, Coded, InMemoryCodec, crop_to_multiple
from .hevc import Hevc
from .hm import Hm
from .resaved import Resaved
from .still import Avif, Jpeg, WebP

CODECS: dict[str, type[Codec]] = {
    "hevc": Hevc,
    "hm": Hm,
    "jpeg": Jpeg,
    "webp": WebP,
    "avif": Avif,
    "resaved": Resaved,
}
"""Every codec by name."""

__all__ = ["CODECS", "Codec", "Coded", "InMemoryCodec", "codec_named", "crop_to_multiple", "get_codec"]


def get_codec(name: str, **options: Any) -> Codec:
    """Makes a codec by name.

    Args:
        name: a key of `CODECS`.
        options: the codec's own; chroma="444", "422" or "420" (hevc, jpeg, avif); encoder, config and timeout_s (hm);
            last="jpeg" or "webp" (resaved).
            None stands for the default, so that a caller can hand its own options through.
    Raises:
        ConfigError: no codec of this name, or an option or value that it does not have.
    Example:
        >>> get_codec("jpeg", chroma="444")
        Jpeg(chroma='444')
    """
    if name not in CODECS:
        raise unknown("codec", name, CODECS)
    kind = CODECS[name]
    known = list(inspect.signature(kind).parameters)
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f'codec "{name}" has no option "{key}"; {has}')
    return kind(**given)


def codec_named(name: str) -> Codec:
    """Makes a codec by its name alone, or by that and its chroma, as "jpeg-444"; errors as of `get_codec`."""
    codec, _, chroma = name.partition("-")
    return get_codec(codec, chroma=chroma or None)
