"""Prints the keys of recipes as tables in Markdown, from `config.py`: the end of docs/recipes.md.

python tools/recipe_keys.py > keys.md
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from subjectiveqe.config import DataConfig, LossConfig, NetConfig, Recipe, StageConfig, ValidConfig

SECTIONS: dict[str, type[BaseModel]] = {
    "The recipe": Recipe,
    "`net_g`, `net_d`": NetConfig,
    "`data`": DataConfig,
    "`valid`": ValidConfig,
    "`psnr`, `gan`": StageConfig,
    "`loss`, `faithful_loss`": LossConfig,
}
BASIC = {int: "whole number", float: "number", str: "text", Path: "path", dict: "keys and values"}
BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below", "min_length": "of at least"}


def tables() -> Iterator[str]:
    """One table for each section."""
    for title, section in SECTIONS.items():
        rows = [
            f"| `{name}` | {_kind(field)} | {_default(field)} | {field.description} |"
            for name, field in section.model_fields.items()
        ]
        doc = " ".join((section.__doc__ or "").split())
        yield "\n".join(
            [f"### {title}", "", doc, "", "| key | takes | if left out | what |", "|---|---|---|---|", *rows, ""]
        )


def _kind(field: FieldInfo) -> str:
    return " ".join([_type(field.annotation), *_bounds(field.metadata)]).strip()


def _type(kind: Any) -> str:
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_type(of[0]), *_bounds(of[1:])])
    if origin in (Union, types.UnionType):
        return _type(next(one for one in of if one is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in of)
    if origin is list:
        return f"list: {_type(of[0])}"
    if origin is tuple:
        return f"{len(of)} of: {_type(of[0])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    return BASIC[origin or kind]


def _bounds(metadata: Any) -> list[str]:
    found = []
    for one in metadata:
        if isinstance(one, FieldInfo):
            found += _bounds(one.metadata)
        found += [
            f"{words} {limit:g}" for name, words in BOUNDS.items() if (limit := getattr(one, name, None)) is not None
        ]
    return found


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "has to be there"
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, BaseModel):
        return f"`{value.model_dump(exclude_defaults=True)}`".replace("'", "")
    return f"`{list(value) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    print("\n".join(tables()), end="")
