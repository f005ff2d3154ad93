"""Arrays as one binary buffer for the browser: uint32 length, JSON header, then the arrays' bytes.

Numbers with a fraction travel as int16 times a scale: 16 bits are 1/10,000 of the plane's width, less than a
pixel on any screen. Everything is little-endian.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

MEDIA_TYPE = "application/octet-stream"


def pack(arrays: Mapping[str, np.ndarray], **header: Any) -> bytes:
    """One buffer of named arrays.

    Args:
        arrays: floats become int16 (value = integer * scale); uint8 and int16 stay what they are.
        header: whatever else the reader should know; must be JSON.

    Returns:
        uint32 length of the header, the header, the arrays in order. `header["arrays"][name]` holds `type`
        ("int16" or "uint8"), `shape`, `scale` and `offset`, in bytes from the end of the header.
    """
    described, parts, offset = {}, [], 0
    for name, array in arrays.items():
        scale = 1.0
        if array.dtype.kind == "f":
            finite = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
            scale = max(float(np.abs(finite).max(initial=0.0)), 1e-9) / 32767
            array = np.rint(finite / scale).astype("<i2")
        content = np.ascontiguousarray(array).tobytes()
        content += b"\0" * (-len(content) % 4)
        kind = "uint8" if array.dtype == np.uint8 else "int16"
        described[name] = {"type": kind, "shape": list(array.shape), "scale": scale, "offset": offset}
        parts.append(content)
        offset += len(content)
    text = json.dumps({**header, "arrays": described}, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + b"".join(parts)


def unpack(buffer: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays (floats where a scale was used), as the browser reads them."""
    size = int.from_bytes(buffer[:4], "little")
    header = json.loads(buffer[4 : 4 + size])
    arrays = {}
    for name, d in header["arrays"].items():
        kind = np.uint8 if d["type"] == "uint8" else np.dtype("<i2")
        count = int(np.prod(d["shape"]))
        array = np.frombuffer(buffer, kind, count, 4 + size + d["offset"]).reshape(d["shape"])
        arrays[name] = array if d["scale"] == 1.0 else array * np.float32(d["scale"])
    return header, arrays
