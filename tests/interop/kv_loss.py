"""What quantized keys and values lose: tamis eval --kv beside llama-perplexity -ctk -ctv.

For pebble and for every model whose folder is named with a path: the KL divergence from the model with an f32 cache, of each
type of cache. Weights are f32 in both programs. tamis must lose no more than llama.cpp does with its type of the same name
(llama.cpp rotates keys and values of heads of 64 numbers, too, but rounds queries to 8 bits), q8_0 and c8 no more than 0.001,
and bytes must be those of the type. The text is eval.txt in the folder, else the file that EVAL_TEXT names.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from common import Context, Refused, Table, start
from eval_same import WINDOWS, figure, perplexity, quantize

CONTEXT = 512
# bytes of 32 numbers; c8: 32 and its share of the scale of a head
BYTES = {"f16": 64, "bf16": 64, "q8_0": 34, "q5_0": 22, "q4_0": 18}
ALIKE = ["q8_0", "q5_0", "q4_0"]
ALONE = ["f16", "bf16", "c8", "q4_0 --kv-keep-first 4", "q4_0 --kv-keep-first 4 --kv-keep-last 32"]
MOST = {"f16": 1e-5, "bf16": 1e-4, "q8_0": 0.001, "c8": 0.001}


def measure(context: Context, folder: Path, text: Path, kind: str) -> dict:
    return json.loads(context.tamis("eval", folder, "--base", folder, "--data", text, "--chunks", WINDOWS, "--ctx", CONTEXT, "--json",
                                    "--kv", *kind.split()))


def numbers_of_a_window(folder: Path) -> tuple[int, int]:
    """Keys and values of a window: how many, and how many heads they are in."""
    config = json.loads((folder / "config.json").read_text())
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    heads = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", config["num_attention_heads"]) * CONTEXT
    return heads * dim, heads


def check(context: Context, table: Table, folder: Path, text: Path) -> None:
    name = folder.name
    file = quantize(context, folder, "f32", f"{name}-f32.gguf")
    logits = context.work / f"{name}.logits"
    perplexity(context, file, text, "--kl-divergence-base", logits)
    n, heads = numbers_of_a_window(folder)
    for kind in [*ALIKE, *ALONE]:
        theirs, error, shown = 0.0, 0.0, ""
        if kind in ALIKE:
            printed = perplexity(context, file, text, "-ctk", kind, "-ctv", kind, "-fa", "on", "--kl-divergence-base", logits, "--kl-divergence")
            theirs, error = figure(printed, "Mean    KLD")
            shown = f"{theirs:.6f} ± {error:.6f}"
        result = measure(context, folder, text, kind)
        ours = result["kl_divergence"]["mean"]
        good = ours <= MOST.get(kind, 1)
        if kind == "q4_0":
            good = good and ours < theirs
        elif kind in ALIKE:
            good = good and ours <= theirs + error
        if "keep" not in kind:
            good = good and result["kv_bytes"] == (n + 4 * heads if kind == "c8" else n // 32 * BYTES[kind])
        table.add(good, name, kind, f"{ours:.7f}", shown, f"{result['kv_bytes'] / 1e6:.2f}", f"{result['perplexity']['value'] / result['base_perplexity']['value'] - 1:+.1e}")
    file.unlink()
    logits.unlink()


def main() -> int:
    context = start(__doc__, ["pebble"])
    table = Table(("model", "cache", "tamis", "llama.cpp", "MB of a window", "perplexity"))
    for name in context.models():
        folder = context.model(name)
        text = folder / "eval.txt" if (folder / "eval.txt").exists() else Path(os.environ.get("EVAL_TEXT", ""))
        try:
            if not text.is_file():
                raise Refused("no eval.txt in it, and EVAL_TEXT names no file")
            check(context, table, folder, text)
        except Refused as refusal:
            table.add(False, folder.name, "", "", "", "", str(refusal))
    return table.finish("KL divergence of quantized keys and values from f32 ones")


if __name__ == "__main__":
    sys.exit(main())
