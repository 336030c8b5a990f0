"""llama.cpp computes from tamis's GGUF files the logits that transformers computes from the source folder.

Per model: the float32 file against transformers in float32 (and against golden.safetensors where the folder has one), the
same file in parts, and two quantized ones, whose logits must be finite and near.

    difference = max |llama.cpp - transformers| / (max - min of transformers' logits)

Allowed for: llama.cpp applies no sliding window to Mistral and Phi-3; it takes Gemma's GELU from a table of 16-bit floats (2e-4
here); it refuses deepseek2 files of unusual depth without q_lora_rank, and is told 0.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from common import MODELS, WIDER, Context, Refused, Table, gguf_parts, start

CONTEXT = start(__doc__, MODELS + WIDER)
os.environ.setdefault("LLAMA_CPP_LIB_PATH", str(CONTEXT.options.peers / "llama-build" / "bin"))  # before the import
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from llama_cpp import GGML_TYPE_F32, Llama  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()
logging.set_verbosity_error()  # it tells of layers for multi-token prediction, which are no part of the model

N_TOKENS = 64
EXACT = 1e-3
# What a type costs depends on the model: these have rows of 64 to 256 random weights and no layers to average over;
# llama.cpp's own files give up to 0.036 and 0.19 here.
NEAR = {"q8_0": 0.06, "q4_k_m": 0.30}
NEAR_OF_EXPERTS = 0.8  # a token that gets another expert has other logits


def has_window(config) -> bool:
    """True if llama.cpp applies this model's window."""
    return config.model_type in ("gemma2", "gemma3_text")


def transformers_logits(folder, tokens: list[int]) -> np.ndarray:
    """[tokens][vocabulary], float32. Sliding windows are off where llama.cpp applies none."""
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, "sliding_window", None) and not has_window(config):
        config.sliding_window = None
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def llama_logits(path, tokens: list[int]) -> np.ndarray:
    """[tokens][vocabulary]. -1 keeps the file's YaRN values, which the package would otherwise override."""
    overrides = {"deepseek2.attention.q_lora_rank": 0} if "deepseek_v2" in Path(path).name else None
    llama = Llama(str(path), n_ctx=len(tokens), n_batch=len(tokens), n_threads=2, logits_all=True, verbose=False,
                  kv_overrides=overrides, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32,
                  yarn_ext_factor=-1.0, yarn_attn_factor=-1.0, yarn_beta_fast=-1.0, yarn_beta_slow=-1.0)
    llama.eval(tokens)
    logits = np.array(llama.scores[:len(tokens)])
    llama.close()
    return logits


def check(table: Table, model: str, what: str, path, tokens: list[int], expected: np.ndarray, limit: float) -> None:
    try:
        logits = llama_logits(path, tokens)
    except Exception as problem:  # the package has no exception of its own for a file that it refuses
        table.add(False, model, what, len(tokens), "", f"{limit:g}", f"{type(problem).__name__}: {problem}")
        return
    logits = logits[:len(expected)]
    if logits.shape != expected.shape:
        table.add(False, model, what, len(tokens), "", f"{limit:g}", f"shape {logits.shape}, expected {expected.shape}")
        return
    difference = float(np.abs(logits - expected).max() / (expected.max() - expected.min()))
    good = bool(np.isfinite(logits).all()) and difference <= limit
    agree = np.mean(logits.argmax(-1) == expected.argmax(-1))
    table.add(good, model, what, len(expected), f"{difference:.1e}", f"{limit:g}", f"{agree:.0%} same first choice")


def check_model(context: Context, table: Table, name: str) -> None:
    folder = context.model(name)
    config = AutoConfig.from_pretrained(folder)
    tokens = [int(t) for t in np.random.default_rng(7).integers(0, config.vocab_size, N_TOKENS)]
    f32, split = context.work / f"{name}.f32.gguf", context.work / f"{name}.split.gguf"
    # The loader takes a model of the name "phi3" for another one.
    named = ("--model-name", "three") if config.model_type == "phi3" else ()
    context.tamis("convert", folder, "--outtype", "f32", "-o", f32, *named)
    if getattr(config, "quantization_config", None):  # FP8, which transformers does not compute with on a CPU
        context.tamis("quantize", folder, "--to", "hf:f32", "-o", context.work / f"{name}.plain")
        expected = transformers_logits(context.work / f"{name}.plain", tokens)
    else:
        expected = transformers_logits(folder, tokens)
    check(table, name, "f32", f32, tokens, expected, EXACT)

    golden_file = folder / "golden.safetensors"
    if golden_file.exists():
        golden = load_file(golden_file)
        ids, logits = golden["input_ids"][0], golden["logits"]
        logits = logits.reshape(-1, logits.shape[-1])
        # Positions inside the window only: golden logits have it, llama.cpp has none.
        window = None if has_window(config) else getattr(config, "sliding_window", None)
        n_comparable = window or len(ids)
        check(table, name, "f32, golden", f32, [int(t) for t in ids], logits[:n_comparable], EXACT)

    context.tamis("convert", folder, "--outtype", "f32", "--split-max-size", f"{f32.stat().st_size // 2500}K", "-o", split, *named)
    check(table, name, "f32 in parts", gguf_parts(split)[0], tokens, expected, EXACT)
    has_experts = getattr(config, "num_experts_per_tok", None) is not None
    for kind, limit in NEAR.items():
        path = context.work / f"{name}.{kind}.gguf"
        context.tamis("quantize", folder, "--to", kind, "-o", path, *named)
        check(table, name, kind, path, tokens, expected, NEAR_OF_EXPERTS if has_experts else limit)


def main() -> int:
    table = Table(("model", "file", "tokens", "difference", "limit", "note"))
    for model in CONTEXT.models():
        try:
            check_model(CONTEXT, table, model)
        except Refused as refusal:
            table.add(False, model, "", "", "", "", f"{refusal}")
    return table.finish("llama.cpp computes the same logits from tamis's files")


if __name__ == "__main__":
    sys.exit(main())
