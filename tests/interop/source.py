"""The weights of a Hugging Face folder under their GGUF names, made without tamis and without llama.cpp's converter."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open

# llama.cpp turns rotary pairs (i, i + half) of these models into neighbours (2i, 2i + 1).
NEIGHBOUR_ROTARY = {"llama", "mistral", "mixtral"}
ARCHITECTURES = {"mistral": "llama"}


def folder_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every shard, as stored."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name == "golden.safetensors":  # a test's expected logits, no weights
            continue
        with safe_open(path, framework="pt") as shard:
            tensors.update((name, shard.get_tensor(name)) for name in shard.keys())
    return tensors


def rotary_neighbours(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """[heads * 2 * half, ...] -> the same rows with the two halves of each head interleaved."""
    half = rows.shape[0] // n_heads // 2
    return rows.reshape(n_heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_weights(folder: Path) -> dict[str, np.ndarray]:
    """GGUF name -> float32 weights, for the dense models of the Llama and Qwen families."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES.get(kind, kind))
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    weights = {}
    for name, tensor in folder_tensors(folder).items():
        rows = tensor.to(torch.float32).numpy()
        if kind in NEIGHBOUR_ROTARY and (".q_proj." in name or ".k_proj." in name):
            key = "num_attention_heads" if ".q_proj." in name else "num_key_value_heads"
            rows = rotary_neighbours(rows, config[key])
        weights[names.get_name(name, try_suffixes=(".weight", ".bias"))] = rows
    return weights
