"""The readers of GPTQ, AWQ and compressed-tensors load the folders that tamis writes, and decode the weights that tamis decodes.

For each model and type tamis writes a folder, and a plain one of that (--to hf:bf16 or hf:f16). Then
  compressed-tensors  transformers loads the folder, which decompresses it; its weights are the plain folder's. Asymmetric ones,
                      which transformers 5.23 refuses, are unpacked by the functions of the library itself;
  gptq                GPTQModel loads it (float16), and what its torch kernel decodes is the plain folder;
  awq                 AutoAWQ's own function decodes the stored tensors, and GPTQModel loads the folder.
`tamis check --for` must agree: no line for what is loaded. A peer that is not installed is left out, and said so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its loader fails on fewer cores than it expects

import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

from common import Context, Refused, Table, start  # noqa: E402
from source import folder_tensors  # noqa: E402

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()

MODELS = ["pebble"]
TYPES = ["w4a16:g32", "w4a16:g128", "w3a16:g64", "w8a16:channel", "w4a16:g32:asym", "w8a8", "fp8", "fp8:tensor", "fp8:block",
         "nvfp4a16", "mxfp4a16", "gptq:4:g32", "gptq:4:g128:asym", "gptq:2:g64", "gptq:3:g64:asym", "gptq:8:channel", "gptq:4:g64:act", "awq:g32", "awq:g128"]


class Absent(Exception):
    """The peer is not installed."""


def differing(theirs: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> str:
    """The first weight that is not the plain folder's; zeros of both signs are equal."""
    for name, tensor in theirs.items():
        expected = plain[name].to(tensor.dtype)
        if tensor.shape != expected.shape:
            return f"{name}: {list(tensor.shape)}, tamis {list(expected.shape)}"
        if not torch.equal(tensor, expected):
            return f"{name}: {int((tensor != expected).sum())} of {tensor.numel()} values differ"
    return ""


def linear_names(tensors: dict[str, torch.Tensor]) -> list[str]:
    endings = (".qweight", ".weight_packed", ".weight_scale")
    return sorted({name[: name.rindex(".")] for name in tensors if name.endswith(endings)})


def finite(model: torch.nn.Module) -> str:
    with torch.no_grad():
        logits = model(torch.arange(16)[None] % model.config.vocab_size).logits
    return "" if torch.isfinite(logits).all() else "logits are not finite"


def by_transformers(folder: Path, plain: dict[str, torch.Tensor]) -> str:
    model = AutoModelForCausalLM.from_pretrained(folder.resolve(), device_map="cpu")
    problem = finite(model)
    modules = dict(model.named_modules())
    theirs = {f"{name}.weight": modules[name].weight.data for name in linear_names(folder_tensors(folder))}
    return differing(theirs, plain) or problem


def by_compressed_tensors(folder: Path, plain: dict[str, torch.Tensor]) -> str:
    """Packed codes and zero points, unpacked by the library: (code - zero) * scale in the scale's type."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    stored, theirs = folder_tensors(folder), {}
    for name in linear_names(stored):
        rows, cols = stored[f"{name}.weight_shape"].tolist()
        scale = stored[f"{name}.weight_scale"]
        codes = unpack_from_int32(stored[f"{name}.weight_packed"], 4, torch.Size((rows, cols)))
        zeros = unpack_from_int32(stored[f"{name}.weight_zero_point"], 4, torch.Size(scale.shape), packed_dim=0)
        group = cols // scale.shape[1]
        difference = codes.to(scale.dtype) - zeros.to(scale.dtype).repeat_interleave(group, 1)
        theirs[f"{name}.weight"] = difference * scale.repeat_interleave(group, 1)
    return differing(theirs, plain)


def by_gptqmodel(folder: Path, plain: dict[str, torch.Tensor]) -> str:
    try:
        from gptqmodel import BACKEND, GPTQModel
    except ImportError as problem:
        raise Absent(f"gptqmodel: {problem}") from problem
    backend = BACKEND.TORCH_AWQ if "awq" in folder.name and hasattr(BACKEND, "TORCH_AWQ") else BACKEND.TORCH
    model = GPTQModel.load(str(folder.resolve()), device="cpu", backend=backend, dtype=torch.float16)
    modules = dict(model.model.named_modules())
    theirs = {}
    for name in linear_names(folder_tensors(folder)):
        module = modules[name]
        if hasattr(module, "dequantize_weight"):
            weight = module.dequantize_weight()
        else:  # what it gives for one input after the other
            module.bias = None
            with torch.no_grad():
                weight = module(torch.eye(module.in_features, dtype=torch.float16))
        theirs[f"{name}.weight"] = weight.T.to(torch.float16).contiguous()
    return differing(theirs, plain)


def by_autoawq(folder: Path, plain: dict[str, torch.Tensor]) -> str:
    """The function's file alone: the package as a whole wants transformers 4."""
    found = importlib.util.find_spec("awq")
    if found is None:
        raise Absent("autoawq")
    path = Path(next(iter(found.submodule_search_locations))) / "utils" / "packing_utils.py"
    spec = importlib.util.spec_from_file_location("awq_packing", path)
    packing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packing)
    stored, theirs = folder_tensors(folder), {}
    for name in linear_names(stored):
        parts = [stored[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")]
        group = parts[0].shape[0] // parts[2].shape[0]
        theirs[f"{name}.weight"] = packing.dequantize_gemm(*parts, 4, group).T.contiguous()
    return differing(theirs, plain)


def ways(kind: str) -> list[tuple[str, str, object]]:
    """The reader as `check --for` names it ('' for functions of a library), the plain type, the comparison."""
    if kind.startswith("gptq"):
        return [("gptqmodel", "hf:f16", by_gptqmodel)]
    if kind.startswith("awq"):
        return [("autoawq", "hf:f16", by_autoawq), ("gptqmodel", "hf:f16", by_gptqmodel)]
    if kind.endswith(":asym"):
        return [("", "hf:bf16", by_compressed_tensors)]
    return [("transformers", "hf:bf16", by_transformers)]


def check(context: Context, table: Table, model: str, kind: str) -> None:
    folder = context.model(model)
    stem = f"{folder.name}.{kind.replace(':', '-')}"
    out, back = context.work / stem, context.work / f"{stem}.plain"
    ordered = ("--method", "gptq", "--data", folder / "calib.txt", "--samples", 8) if kind.endswith(":act") else ()
    context.tamis("quantize", folder, "--to", kind, "-o", out, "--force", *ordered)
    for reader, plain_type, compare in ways(kind):
        context.tamis("quantize", out, "--to", plain_type, "-o", back, "--force")
        said = ""
        if reader:
            try:
                context.tamis("check", out, "--for", reader)
            except Refused as refusal:
                said = f"tamis check --for {reader}: {refusal}"
        peer = reader or "compressed-tensors"
        try:
            problem = compare(out, folder_tensors(back)) or said
        except Absent as absent:
            table.add(True, folder.name, kind, peer, f"left out, not installed: {absent}")
            continue
        except Exception as problem_of_peer:  # whatever a peer raises for a folder that it cannot load
            problem = f"{type(problem_of_peer).__name__}: {(str(problem_of_peer).splitlines() or [''])[0]}"
        table.add(not problem, folder.name, kind, peer, problem)


def main() -> int:
    context = start(__doc__, MODELS)
    table = Table(("model", "type", "reader", "note"))
    for model in context.models():
        for kind in context.options.types or TYPES:
            try:
                check(context, table, model, kind)
            except Refused as refusal:
                table.add(False, model, kind, "", refusal)
    return table.finish("the readers of GPTQ, AWQ and compressed-tensors load what tamis writes")


if __name__ == "__main__":
    sys.exit(main())
