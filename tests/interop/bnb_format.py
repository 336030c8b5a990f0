"""The bitsandbytes checkpoint format in numpy: decodes stored tensors, and says which codes double quantization must give.

Written from the format, without the library, so that its agreement with tamis and with the library means something.
"""

from __future__ import annotations

import json

import numpy as np
import torch

NESTED_BLOCK = 256


def state_of(tensors: dict[str, torch.Tensor], prefix: str) -> dict:
    """The quant_state JSON of the module's weight, {} when the weight is not 4-bit."""
    for name in tensors:
        if name.startswith(f"{prefix}.weight.quant_state.bitsandbytes__"):
            return json.loads(tensors[name].numpy().tobytes())
    return {}


def absmax_values(tensors: dict[str, torch.Tensor], prefix: str, state: dict) -> np.ndarray:
    """One float32 scale per block, nested ones decoded."""
    absmax = tensors[f"{prefix}.weight.absmax"].numpy()
    if "nested_offset" not in state:
        return absmax
    nested = tensors[f"{prefix}.weight.nested_absmax"].numpy()
    values = tensors[f"{prefix}.weight.nested_quant_map"].numpy()[absmax]
    scales = np.repeat(nested, state["nested_blocksize"])[:len(absmax)]
    return values * scales + np.float32(state["nested_offset"])


def decode_4bit(tensors: dict[str, torch.Tensor], prefix: str, library_fault: bool = False) -> torch.Tensor:
    """The weight [rows][columns] in the dtype that the state names.

    library_fault: as bitsandbytes 0.50 decodes on a CPU with AVX-512 when rows are no multiple of the block size: it
    counts whole blocks per row only, block r * floor(columns / size) + floor(c / size).
    """
    state = state_of(tensors, prefix)
    rows, columns = state["shape"]
    size = state["blocksize"]
    packed = tensors[f"{prefix}.weight"].contiguous().view(torch.uint8).numpy().reshape(-1)
    codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[:rows * columns]
    at = np.arange(rows * columns)
    block = at // size
    if library_fault:
        block = (at // columns) * (columns // size) + (at % columns) // size
    values = tensors[f"{prefix}.weight.quant_map"].numpy()[codes] * absmax_values(tensors, prefix, state)[block]
    return torch.from_numpy(values.reshape(rows, columns)).to(getattr(torch, state["dtype"]))


def decode_int8(tensors: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    codes, scales = tensors[f"{prefix}.weight"].numpy(), tensors[f"{prefix}.SCB"].numpy()
    return torch.from_numpy(codes.astype(np.float32) * scales[:, None] * np.float32(7.874015718698502e-3))


def nested_codes(absmax: np.ndarray, offset: float, quant_map: np.ndarray) -> dict[str, np.ndarray]:
    """Both codings of the scales that bitsandbytes has: 'nearest' (its portable operator), 'table' (its native CPU code).

    The table has 65536 entries over [-1, 1]; values near a midpoint may get the neighbour of the nearest code.
    """
    y = (absmax - np.float32(offset)).astype(np.float32)
    middles = (quant_map[1:] + quant_map[:-1]) * np.float32(0.5)
    grid = np.float32(-1) + np.float32(2) * np.arange(65536, dtype=np.float32) / np.float32(65535)
    table = np.searchsorted(middles, grid, side="left").astype(np.uint8)
    nearest, native = np.empty(len(y), np.uint8), np.empty(len(y), np.uint8)
    for first in range(0, len(y), NESTED_BLOCK):
        part = y[first:first + NESTED_BLOCK]
        largest = np.abs(part).max()
        if len(part) == NESTED_BLOCK:
            unit = part * (np.float32(1) / np.maximum(largest, np.float32(1e-38)))
        else:
            unit = part / np.maximum(largest, np.float32(1e-38))
        nearest[first:first + NESTED_BLOCK] = np.searchsorted(middles, np.clip(unit, -1, 1), side="left")
        if largest == 0:
            native[first:first + NESTED_BLOCK] = 0
            continue
        unit = np.clip(part * (np.float32(1) / largest), np.float32(-1), np.float32(1))
        at = ((unit + np.float32(1)) * np.float32(0.5)) * np.float32(65535) + np.float32(0.5)
        native[first:first + NESTED_BLOCK] = table[at.astype(np.uint16)]
    return {"nearest": nearest, "table": native}
