"""Writes a HEIC file of tiles, as phones do; pillow_heif writes whole pictures alone."""

from __future__ import annotations

import struct

import numpy as np

from subjectiveqe.codecs.hevc import encode_planes
from subjectiveqe.color import rgb_to_ycbcr


def box(kind, *parts):
    payload = b"".join(parts)
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def full_box(kind, version, flags, *parts):
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def nal_units(stream):
    units = stream.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    return [(unit[0] >> 1 & 63, unit) for unit in units]


def hevc_config(units):
    """The decoder's configuration (ISO/IEC 14496-15, "hvcC"), with parameter sets."""
    sets = {kind: unit for kind, unit in units if kind in (32, 33, 34)}
    profile = sets[33].replace(b"\0\0\3", b"\0\0")[3:15]
    head = b"\1" + profile + struct.pack(">HBBBBHB", 0xF000, 0xFC, 0xFC | 1, 0xF8, 0xF8, 0, 0b00001111)
    arrays = [struct.pack(">BHH", 0x80 | kind, 1, len(unit)) + unit for kind, unit in sorted(sets.items())]
    return box(b"hvcC", head, bytes([len(arrays)]), *arrays)


def coded(rgb, qp):
    """The NAL units of a picture in 4:2:0, uint8 (H, W, 3)."""
    y, cb, cr = np.moveaxis(rgb_to_ycbcr(rgb), 2, 0)
    planes = y, *(np.ascontiguousarray(chroma[::2, ::2]) for chroma in (cb, cr))
    options = {"qp": qp, "keyint": 1, "info": 0, "ipratio": 1, "pools": "none", "log-level": "none"}
    return nal_units(encode_planes(planes, options))


def write_grid(path, rgb, rows, columns, qps, thumbnail=None):
    """Writes a picture in equal tiles of 64 px or more.

    Args:
        path: the file.
        rgb: uint8 (H, W, 3).
        rows: how many tiles high.
        columns: how many wide.
        qps: one for each tile, row by row.
        thumbnail: a small picture and its QP.
    """
    height, width = (side // count for side, count in zip(rgb.shape, (rows, columns), strict=False))
    places = [(top, left) for top in range(0, rows * height, height) for left in range(0, columns * width, width)]
    pictures = [(rgb[top : top + height, left : left + width], qp) for (top, left), qp in zip(places, qps, strict=True)]
    pictures += [thumbnail] if thumbnail else []
    streams = [coded(*picture) for picture in pictures]
    tiles, grid = range(1, len(qps) + 1), len(pictures) + 1
    numbers = range(1, grid + 1)

    items = [b"".join(struct.pack(">I", len(u)) + u for kind, u in units if kind < 32) for units in streams]
    items.append(struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, columns * width, rows * height))
    kinds = [b"hvc1"] * len(pictures) + [b"grid"]
    entries = [
        full_box(b"infe", 2, number in tiles, struct.pack(">HH4s", number, 0, kind), b"\0")
        for number, kind in zip(numbers, kinds, strict=True)
    ]
    sizes = [(tile.shape[1], tile.shape[0]) for tile, _ in pictures] + [(columns * width, rows * height)]
    colours = box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0))
    properties = [*(hevc_config(units) for units in streams), colours]
    properties += [full_box(b"ispe", 0, 0, struct.pack(">II", *size)) for size in sizes]
    of_item = [struct.pack(">HBBB", n, 3, 0x80 | n, grid) + bytes([grid + n]) for n in numbers[:-1]]
    of_item.append(struct.pack(">HBBB", grid, 2, grid, 2 * grid))
    references = [box(b"dimg", struct.pack(f">HH{len(tiles)}H", grid, len(tiles), *tiles))]
    references += [box(b"thmb", struct.pack(">HHH", grid - 1, 1, grid))] if thumbnail else []
    start = box(b"ftyp", b"heic", struct.pack(">I", 0), b"mif1heic")

    def meta(first):
        places = [first + sum(map(len, items[:n])) for n in range(grid)]
        extents = [
            struct.pack(">HHHII", number, 0, 1, place, len(item))
            for number, place, item in zip(numbers, places, items, strict=True)
        ]
        return full_box(
            *(b"meta", 0, 0),
            full_box(b"hdlr", 0, 0, struct.pack(">I4s12xB", 0, b"pict", 0)),
            full_box(b"pitm", 0, 0, struct.pack(">H", grid)),
            full_box(b"iloc", 0, 0, struct.pack(">BBH", 0x44, 0x00, grid), *extents),
            full_box(b"iinf", 0, 0, struct.pack(">H", grid), *entries),
            full_box(b"iref", 0, 0, *references),
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", 0, 0, struct.pack(">I", grid), *of_item)),
        )

    first = len(start) + len(meta(0)) + 8
    path.write_bytes(start + meta(first) + box(b"mdat", *items))
    return path
