"""transformers and bitsandbytes load the folders that tamis writes, decode the same weights, and would write the same bytes.

Four questions per model and type:
  loads    from_pretrained takes the folder, and its forward pass gives finite logits;
  decodes  what bitsandbytes decodes from every loaded layer is what numpy decodes from the stored tensors (bnb_format.py);
  bytes    every tensor equals what transformers + bitsandbytes write with save_pretrained from the same source;
  plain    the plain folder that tamis makes of it (--to hf:TYPE) holds the decoded weights.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bitsandbytes as bnb  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, BitsAndBytesConfig  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

from bnb_format import absmax_values, decode_4bit, decode_int8, nested_codes, state_of  # noqa: E402
from common import MODELS, WIDER, Context, Refused, Table, start  # noqa: E402
from source import folder_tensors  # noqa: E402

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

TYPES = ["nf4", "nf4:dq", "fp4", "nf4:b128", "int8"]
SHORT_NAMES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
OFFSET_TOLERANCE = 4e-7  # the library's mean of the scales depends on its order of summation


def library_config(kind: str) -> BitsAndBytesConfig:
    base, *parameters = kind.split(":")
    if base == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=base, bnb_4bit_use_double_quant="dq" in parameters)


def library_tensors(folder: Path, kind: str, out: Path) -> dict[str, torch.Tensor]:
    """What the library writes. transformers has no option for the block size, so those weights are made one by one."""
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=library_config(kind), dtype="auto", device_map="cpu")
    model.save_pretrained(out)
    tensors = folder_tensors(out)
    sizes = [int(part[1:]) for part in kind.split(":") if part[0] == "b" and part[1:].isdigit()]
    if not sizes:
        return tensors
    source = folder_tensors(folder)
    for name in [name for name in tensors if ".weight.quant_state." in name]:
        prefix = name.split(".weight.quant_state.")[0]
        packed, state = bnb.functional.quantize_4bit(source[f"{prefix}.weight"], blocksize=sizes[0], quant_type=kind.split(":")[0])
        tensors[f"{prefix}.weight"] = packed
        for key, tensor in state.as_dict(packed=True).items():
            tensors[f"{prefix}.weight.{key}"] = tensor
    return tensors


def decode_problem(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> tuple[int, str, str]:
    """Number of quantized layers, what is wrong, and what must be said of the library itself."""
    n_layers, n_faults, problem = 0, 0, ""
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            theirs = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            ours = decode_4bit(tensors, name)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            theirs = bnb.functional.int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
            ours = decode_int8(tensors, name)
        else:
            continue
        n_layers += 1
        if torch.equal(theirs, ours):
            continue
        state = state_of(tensors, name)
        if state and state["shape"][1] % state["blocksize"] and torch.equal(theirs, decode_4bit(tensors, name, library_fault=True)):
            n_faults += 1
            continue
        problem = problem or f"{name}: {int((theirs != ours).sum())} of {ours.numel()} decoded values differ"
    n_stored = sum(".weight.quant_state." in name or name.endswith(".SCB") for name in tensors)
    if n_stored != n_layers:
        problem = problem or f"{n_stored} quantized weights stored, {n_layers} loaded"
    fault = f"{n_faults} layers decoded wrongly by the library itself (AVX-512, ragged rows)" if n_faults else ""
    return n_layers, problem, fault


def has_awkward_shapes(tensors: dict[str, torch.Tensor]) -> bool:
    """Shapes at which bitsandbytes 0.50 stops in its forward pass on a CPU with AVX512-BF16, whoever wrote the folder."""
    states = [state_of(tensors, name.split(".weight.quant_state.")[0]) for name in tensors if ".weight.quant_state." in name]
    return any(state["shape"][0] % 32 or state["shape"][1] % state["blocksize"] for state in states)


def forward_problem(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> tuple[str, str]:
    """What is wrong with a forward pass, and what must be said of the library itself."""
    try:
        with torch.no_grad():
            logits = model(torch.arange(16)[None] % model.config.vocab_size).logits
    except (RuntimeError, AssertionError) as problem:
        if not has_awkward_shapes(tensors):
            raise
        return "", f"the library's forward pass stops at such shapes ({str(problem).splitlines()[0]})"
    return ("" if torch.isfinite(logits).all() else "logits are not finite"), ""


def nested_problem(ours: dict, theirs: dict, plain: dict, prefix: str) -> tuple[str, str]:
    """Compares a double-quantized scale: given the stored offset all else is exact, in one of the library's two codings."""
    mine, other = state_of(ours, prefix), state_of(theirs, prefix)
    offset, expected = mine["nested_offset"], other["nested_offset"]
    if abs(offset - expected) > OFFSET_TOLERANCE * abs(expected):
        return f"{prefix}: nested_offset {offset}, theirs {expected}", ""
    if {**mine, "nested_offset": 0} != {**other, "nested_offset": 0} or list(mine) != list(other):
        return f"{prefix}: quant_state {mine}, theirs {other}", ""
    absmax = absmax_values(plain, prefix, {})
    distance = np.abs(absmax - np.float32(offset))
    largest = [distance[i:i + 256].max() for i in range(0, len(distance), 256)]
    if not np.array_equal(ours[f"{prefix}.weight.nested_absmax"].numpy(), np.array(largest, np.float32)):
        return f"{prefix}: nested_absmax differs", ""
    codes = nested_codes(absmax, offset, ours[f"{prefix}.weight.nested_quant_map"].numpy())
    stored = ours[f"{prefix}.weight.absmax"].numpy()
    codings = {name for name, expected_codes in codes.items() if np.array_equal(stored, expected_codes)}
    return ("", "/".join(sorted(codings))) if codings else (f"{prefix}: codes of the scales differ from both codings", "")


def bytes_problem(ours: dict, theirs: dict, plain: dict | None) -> tuple[str, str]:
    missing, extra = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    if missing or extra:
        return f"missing {missing[:2]}, too many {extra[:2]}", ""
    codings: set[str] = set()
    for name, tensor in theirs.items():
        mine = ours[name]
        if mine.dtype != tensor.dtype or mine.shape != tensor.shape:
            if ".quant_state." not in name:
                return f"{name}: {mine.dtype}{list(mine.shape)}, theirs {tensor.dtype}{list(tensor.shape)}", ""
        prefix, _, rest = name.partition(".weight.")
        if plain and rest in ("absmax", "nested_absmax") or plain and rest.startswith("quant_state."):
            problem, coding = nested_problem(ours, theirs, plain, prefix)
            if problem:
                return problem, ""
            codings.add(coding)
        elif mine.contiguous().view(torch.uint8).numpy().tobytes() != tensor.contiguous().view(torch.uint8).numpy().tobytes():
            return f"{name}: bytes differ", ""
    common = set.intersection(*(set(coding.split("/")) for coding in codings)) if codings else set()
    if codings and not common:
        return "scales coded in different ways in one folder", ""
    return "", f"scales coded: {'/'.join(sorted(common))}" if codings else ""


def config_problem(ours: Path, theirs: Path, source: Path) -> str:
    mine, other = (json.loads((folder / "config.json").read_text()) for folder in (ours, theirs))
    dtype, expected_dtype = mine.get("dtype", mine.get("torch_dtype")), other.get("dtype")
    if dtype != expected_dtype:
        return f"config.json: dtype {dtype}, theirs {expected_dtype}"
    for key, expected in other["quantization_config"].items():
        value = mine.get("quantization_config", {}).get(key, "absent")
        free = key == "bnb_4bit_compute_dtype" and value == dtype  # the library's default is float32, users choose the model's own
        if value != expected and not free:
            return f"config.json: quantization_config.{key} is {value}, theirs {expected}"
    for path in source.glob("tokenizer*"):
        copy = ours / path.name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            return f"{path.name} was not copied"
    return ""


def plain_problem(context: Context, out: Path, tensors: dict[str, torch.Tensor]) -> str:
    """Of the folder back in the model's own type; what is decoded from the stored tensors was compared with the library's."""
    config = json.loads((out / "config.json").read_text())
    dtype = config.get("dtype", config.get("torch_dtype"))
    back = out.with_name(f"{out.name}.back")
    context.tamis("quantize", out, "--to", f"hf:{SHORT_NAMES[dtype]}", "-o", back)
    if "quantization_config" in json.loads((back / "config.json").read_text()):
        return "plain folder: config.json still has a quantization_config"
    for name, tensor in folder_tensors(back).items():
        prefix, stored = name.removesuffix(".weight"), tensors[name]
        if f"{prefix}.SCB" in tensors:
            stored = decode_int8(tensors, prefix)
        elif f"{name}.absmax" in tensors:
            stored = decode_4bit(tensors, prefix)
        if tensor.dtype != getattr(torch, dtype) or not torch.equal(tensor, stored.to(tensor.dtype)):
            return f"plain folder: {name} differs"
    return ""


def check(context: Context, table: Table, model: str, kind: str) -> None:
    folder = context.model(model)
    stem = f"{folder.name}.{kind.replace(':', '-')}"
    out, peer = context.work / stem, context.work / f"{stem}.peer"
    try:
        context.tamis("quantize", folder, "--to", kind, "-o", out)
    except Refused as refusal:
        table.add(False, folder.name, kind, "", refusal)
        return
    ours = folder_tensors(out)
    theirs = library_tensors(folder, kind, peer)
    plain = library_tensors(folder, kind.replace(":dq", ""), context.work / f"{stem}.plain") if ":dq" in kind else None
    loaded = AutoModelForCausalLM.from_pretrained(out, device_map="cpu")
    n_layers, problem, fault = decode_problem(loaded, ours)
    difference, coding = bytes_problem(ours, theirs, plain)
    forward, forward_fault = forward_problem(loaded, ours)
    problems = [problem, difference, config_problem(out, peer, folder), forward, plain_problem(context, out, ours)]
    notes = [text for text in problems + [fault, forward_fault, coding] if text]
    table.add(not any(problems), folder.name, kind, n_layers, "; ".join(notes))


def main() -> int:
    context = start(__doc__, MODELS + [name for name in WIDER if "deepseek" not in name])
    table = Table(("model", "type", "layers", "note"))
    for model in context.models():
        for kind in context.options.types or TYPES:
            try:
                check(context, table, model, kind)
            except Exception as problem:  # whatever transformers raises for a folder that it cannot load
                table.add(False, model, kind, "", f"{type(problem).__name__}: {str(problem).splitlines()[0]}")
    return table.finish("bitsandbytes loads what tamis writes")


if __name__ == "__main__":
    sys.exit(main())
