"""The Python package gguf reads every GGUF file that tamis writes, and decodes from it the weights that went in.

The weights that are expected come from the Hugging Face folder (source.py), not from tamis. Types that gguf's own numpy
code can encode must have the very bytes it gives; of all others the decoded weights must lie near the source.
"""

from __future__ import annotations

import sys

import numpy as np
from gguf import GGMLQuantizationType, quants

from common import MODELS, TYPES, Context, Refused, Table, gguf_parts, read_gguf, start
from source import gguf_weights

EXACT = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}

# Largest allowed root mean square of the error, relative to that of the tensor. Normal weights give about three
# quarters of it; reading a field of the block wrongly gives 0.3 and more.
NEAR = {"Q8_0": 0.01, "Q6_K": 0.03, "Q5_K": 0.06, "Q5_0": 0.07, "Q5_1": 0.07, "Q4_K": 0.12, "Q4_0": 0.14, "Q4_1": 0.13,
        "IQ4_NL": 0.12, "IQ4_XS": 0.12, "Q3_K": 0.24, "Q2_K": 0.45, "IQ3_S": 0.25, "IQ2_S": 0.45}

OUTTYPES = ["f32", "f16", "bf16", "q8_0", "auto"]


def compare(tensors: dict, expected: dict[str, np.ndarray]) -> tuple[str, float]:
    """What is wrong ('' when nothing is), and the largest relative error of a tensor."""
    generated = {"rope_freqs.weight"}  # made by converters from config.json
    missing = set(expected) - set(tensors)
    extra = set(tensors) - set(expected) - generated
    if missing or extra:
        return f"missing {sorted(missing)[:2]}, too many {sorted(extra)[:2]}", 0.0
    worst = 0.0
    for name, source in expected.items():
        tensor = tensors[name]
        if tensor.shape[::-1] != source.shape:
            return f"{name}: shape {tensor.shape[::-1]}, expected {source.shape}", worst
        if tensor.type_name in EXACT:
            bytes_expected = quants.quantize(source, GGMLQuantizationType[tensor.type_name]).tobytes()
            if tensor.bytes() != bytes_expected:
                return f"{name} ({tensor.type_name}): bytes differ from gguf's own encoder", worst
        error = tensor.values().astype(np.float64) - source
        size = np.sqrt(np.mean(np.square(source, dtype=np.float64)))
        relative = float(np.sqrt(np.mean(np.square(error))) / size) if size else float(np.abs(error).max())
        if tensor.type_name in NEAR:
            worst = max(worst, relative)
            if not relative <= NEAR[tensor.type_name]:
                return f"{name} ({tensor.type_name}): relative error {relative:.3f}", worst
    return "", worst


def check(context: Context, table: Table, model: str, what: str, command: list, expected: dict, parts_wanted: int = 1) -> None:
    out = context.work / f"{model}.{what.replace(' ', '-')}.gguf"
    try:
        context.tamis(*command, "-o", out)
        parts = len(gguf_parts(out))
        _, tensors = read_gguf(out)
        problem, worst = compare(tensors, expected)
    except Refused as refusal:
        # llama-quantize refuses q2_k_s too when it has no importance weights.
        table.add(what == "q2_k_s" and "importance" in str(refusal), model, what, "", "", f"refused: {refusal}")
        return
    if parts < parts_wanted:
        problem = problem or f"{parts} parts, expected {parts_wanted} or more"
    kinds: dict[str, int] = {}
    for tensor in tensors.values():
        kinds[tensor.type_name] = kinds.get(tensor.type_name, 0) + 1
    mixture = " ".join(f"{kind}:{n}" for kind, n in sorted(kinds.items()))
    table.add(not problem, model, what, f"{worst:.4f}" if worst else "exact", mixture, problem)
    if not context.options.keep:
        for part in gguf_parts(out):
            part.unlink()


def main() -> int:
    context = start(__doc__, MODELS)
    table = Table(("model", "written as", "error", "types", "note"))
    for model in context.models():
        folder = context.model(model)
        expected = gguf_weights(folder)
        total = sum(4 * rows.size for rows in expected.values())
        for outtype in OUTTYPES:
            check(context, table, folder.name, f"convert {outtype}", ["convert", folder, "--outtype", outtype], expected)
        check(context, table, folder.name, "split f32",
              ["convert", folder, "--outtype", "f32", "--split-max-size", f"{total // 2500}K"], expected, parts_wanted=2)
        for kind in context.options.types or TYPES:
            check(context, table, folder.name, kind, ["quantize", folder, "--to", kind], expected)
    return table.finish("gguf reads what tamis writes")


if __name__ == "__main__":
    sys.exit(main())
