"""tamis run computes the logits that transformers computes, and says the tokens that llama.cpp says.

Per model: `tamis run --ids --logits` from the folder, and from its F32 GGUF file, against transformers in float32 (of some
also with what else their config.json may say: every kind of rope scaling, a sliding window);

    difference = max |tamis - transformers| / (max - min of transformers' logits)

then, for pebble and for every model whose folder is named with a path, the greedy continuation of an F16 file by tamis and
by llama.cpp. Where they part, the logits of both tokens must be closer than what rounding can make of them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np

from common import MODELS, WIDER, Context, Refused, Table, start

CONTEXT = start(__doc__, MODELS + [name for name in WIDER if name != "deepseek_v3_fp8"])
os.environ.setdefault("LLAMA_CPP_LIB_PATH", str(CONTEXT.options.peers / "llama-build" / "bin"))  # before the import
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from llama_cpp import GGML_TYPE_F32, Llama  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()

N_TOKENS = 96
N_SAID = 64
EXACT = 1e-4
# llama.cpp rounds what it multiplies with F16 weights to F16, tamis does not: two tokens this near are a tie.
TIE = 5e-3
# What published models of these kinds have and the small ones lack; 96 tokens go past all contexts and windows here.
VARIANTS = {
    ("llama2", "linear"): {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ("llama2", "dynamic"): {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64},
    ("llama2", "yarn"): {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, "max_position_embeddings": 128},
    ("llama2", "llama3"): {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                            "original_max_position_embeddings": 32}},
    ("mistral", "window"): {"sliding_window": 24},
    ("qwen2_tied", "window"): {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1, "layer_types": None},
}


def transformers_logits(folder, tokens: list[int]) -> np.ndarray:
    """[tokens][vocabulary], float32, with the windows that the model has."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def tamis_logits(context: Context, model, tokens: list[int]) -> np.ndarray:
    ids, out = context.work / "ids.txt", context.work / "logits.safetensors"
    ids.write_text(",".join(map(str, tokens)))
    context.tamis("run", model, "--ids", f"@{ids}", "--logits", out, "--ctx", len(tokens), "-q")
    return load_file(out)["logits"]


def check_logits(context: Context, table: Table, name: str) -> None:
    folder, gguf = context.model(name), context.work / "f32.gguf"
    config = AutoConfig.from_pretrained(folder)
    tokens = [int(t) for t in np.random.default_rng(11).integers(0, config.vocab_size, N_TOKENS)]
    expected = transformers_logits(folder, tokens)
    span = float(expected.max() - expected.min())
    context.tamis("convert", folder, "--outtype", "f32", "-o", gguf)
    for what, model in (("folder", folder), ("F32 GGUF", gguf)):
        logits = tamis_logits(context, model, tokens)
        good = logits.shape == expected.shape
        difference = float(np.abs(logits - expected).max()) / span if good else float("inf")
        table.add(good and difference <= EXACT, folder.name, what, N_TOKENS, f"{difference:.1e}", f"{EXACT:g}")


def check_variants(context: Context, table: Table, name: str) -> None:
    for (base, variant), changes in VARIANTS.items():
        if base != name:
            continue
        folder = context.work / f"{name}-{variant}"
        shutil.copytree(context.model(name), folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None or key not in changes}))
        tokens = [int(t) for t in np.random.default_rng(12).integers(0, config["vocab_size"], N_TOKENS)]
        expected = transformers_logits(folder, tokens)
        plain = transformers_logits(context.model(name), tokens)
        difference = float(np.abs(tamis_logits(context, folder, tokens) - expected).max()) / float(expected.max() - expected.min())
        matters = float(np.abs(plain - expected).max()) > 0.01  # else nothing was tested
        table.add(matters and difference <= EXACT, folder.name, "folder", N_TOKENS, f"{difference:.1e}", f"{EXACT:g}")


def check_said(context: Context, table: Table, name: str) -> None:
    folder, gguf = context.model(name), context.work / "f16.gguf"
    context.tamis("convert", folder, "--outtype", "f16", "-o", gguf)
    llama = Llama(str(gguf), n_ctx=512, n_threads=2, logits_all=True, verbose=False, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32)
    for prompt in ("The emperor", "It was in the year", "She looked at him and said"):
        tokens = llama.tokenize(prompt.encode(), add_bos=True)
        said = json.loads(context.tamis("run", gguf, "--ids", ",".join(map(str, tokens)), "-n", N_SAID, "--temp", 0,
                                        "--ignore-eos", "--json"))["ids"]
        # tamis's own tokens go through llama.cpp: at each place its best token is the same, or a tie
        llama.reset()
        llama.eval(tokens + said)
        scores = np.array(llama.scores[len(tokens) - 1:len(tokens) + len(said) - 1])
        behind = (scores.max(-1) - scores[np.arange(len(said)), said]) / (scores.max() - scores.min())
        good = len(said) == N_SAID and float(behind.max()) <= TIE
        table.add(good, folder.name, f"F16 GGUF, llama.cpp, '{prompt}'", len(said), f"{behind.max():.1e}", f"{TIE:g}")
    llama.close()


def main() -> int:
    table = Table(("model", "what", "tokens", "difference", "limit"))
    for name in CONTEXT.models():
        try:
            check_logits(CONTEXT, table, name)
            check_variants(CONTEXT, table, name)
            if name == "pebble" or "/" in name:
                check_said(CONTEXT, table, name)
        except Refused as refusal:
            table.add(False, name, "", "", "", f"{refusal}")
    return table.finish("tamis run computes what transformers and llama.cpp compute")


if __name__ == "__main__":
    sys.exit(main())
