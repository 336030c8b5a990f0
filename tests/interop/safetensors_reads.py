"""The safetensors library reads every shard that tamis writes, and the index says what is there.

Each folder is written twice, in one file and with a small --max-shard-size: both must hold the same tensors, no shard of
several tensors may be larger than asked, and the index must name each tensor's shard and the sum of all tensor bytes.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from common import MODELS, WIDER, Context, Refused, Table, start
from source import folder_tensors

TYPES = ["nf4", "nf4:dq", "int8"]
LIMIT = {"pebble": 1_000_000}
TINY_LIMIT = 40_000


def header_problem(path: Path) -> str:
    """What the library does not look at, but its own writer keeps."""
    with path.open("rb") as file:
        n_header = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(n_header))
    if header.get("__metadata__", {}).get("format") != "pt":
        return f"{path.name}: metadata has no format pt, older loaders of transformers refuse it"
    if n_header % 8:
        return f"{path.name}: tensor data do not begin at a multiple of 8"
    end = 0
    for name, entry in header.items():
        if name != "__metadata__":
            begin, after = entry["data_offsets"]
            if begin != end:
                return f"{path.name}: {name} begins at {begin}, the one before it ends at {end}"
            end = after
    return "" if 8 + n_header + end == path.stat().st_size else f"{path.name}: bytes after the last tensor"


def shard_problem(folder: Path, limit: int) -> str:
    shards = sorted(folder.glob("*.safetensors"))
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if [path.name for path in shards] != names:
        return f"shards are named {[path.name for path in shards][:3]}"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    total, seen = 0, {}
    for path in shards:
        problem = header_problem(path)
        if problem:
            return problem
        with safe_open(path, framework="pt") as shard:
            sizes = {}
            for name in shard.keys():
                tensor = shard.get_tensor(name)
                sizes[name] = tensor.numel() * tensor.element_size()
                seen[name] = path.name
        if len(sizes) > 1 and sum(sizes.values()) > limit:
            return f"{path.name}: {sum(sizes.values())} bytes of tensors, limit {limit}"
        total += sum(sizes.values())
    if index["weight_map"] != seen:
        wrong = sorted(set(index["weight_map"].items()) ^ set(seen.items()))
        return f"index: weight_map differs at {wrong[0]}"
    if index["metadata"]["total_size"] != total:
        return f"index: total_size {index['metadata']['total_size']}, tensors have {total}"
    return ""


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str:
    if set(one) != set(other):
        return f"tensors differ: {sorted(set(one) ^ set(other))[:3]}"
    for name, tensor in one.items():
        mine = other[name]
        if (tensor.dtype, tensor.shape) != (mine.dtype, mine.shape) or tensor.numpy(force=True).tobytes() != mine.numpy(force=True).tobytes():
            return f"{name} differs between one file and shards"
    return ""


def as_bytes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """bfloat16 has no numpy type: look at such tensors as integers."""
    return {name: tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor for name, tensor in tensors.items()}


def check(context: Context, table: Table, model: str, kind: str) -> None:
    folder = context.model(model)
    stem = f"{folder.name}.{kind.replace(':', '-')}"
    whole, parts = context.work / f"{stem}.whole", context.work / f"{stem}.shards"
    limit = LIMIT.get(folder.name, TINY_LIMIT)
    try:
        context.tamis("quantize", folder, "--to", kind, "-o", whole)
        context.tamis("quantize", folder, "--to", kind, "--max-shard-size", f"{limit // 1000}KB", "-o", parts)
    except Refused as refusal:
        table.add(False, folder.name, kind, "", "", refusal)
        return
    n_shards = len(list(parts.glob("*.safetensors")))
    problem = header_problem(whole / "model.safetensors")
    if not problem:
        problem = shard_problem(parts, limit) if n_shards > 1 else f"{n_shards} shard"
    tensors = folder_tensors(whole)
    problem = problem or same_tensors(as_bytes(tensors), as_bytes(folder_tensors(parts)))
    table.add(not problem, folder.name, kind, len(tensors), n_shards, problem)


def main() -> int:
    context = start(__doc__, MODELS + [name for name in WIDER if name != "deepseek_v3_fp8"])
    table = Table(("model", "type", "tensors", "shards", "note"))
    for model in context.models():
        for kind in context.options.types or TYPES:
            try:
                check(context, table, model, kind)
            except Exception as problem:  # the library's own error for a file that it cannot read
                table.add(False, model, kind, "", "", f"{type(problem).__name__}: {problem}")
    return table.finish("safetensors reads what tamis writes")


if __name__ == "__main__":
    sys.exit(main())
