"""tamis eval measures what transformers and llama-perplexity measure.

For pebble: the published figures of its eval.txt, perplexities in both styles and the KL divergence of file types from F32.
For pebble and for every model whose folder is named with a path: the perplexity of its F16 file and of quantized ones beside
llama-perplexity's on the same files, and the KL divergence beside that of llama-perplexity --kl-divergence, which gets the same
weights decoded to an F32 file (its own kernels would round activations to 8 bits). The text is eval.txt in the folder, else
the file that EVAL_TEXT names.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

from common import Context, Refused, Table, start

WINDOWS = 20  # of 512 tokens
# pebble's eval.txt in windows of 512, transformers and llama.cpp in float32
PERPLEXITY = {"llama": 44.82, "full": 44.80}
DIVERGENCE = {"q8_0": 0.000090, "q6_k": 0.000969, "q5_k_m": 0.002695, "q4_k_m": 0.009036, "q4_0": 0.01508, "q3_k_m": 0.02634, "q2_k": 0.1150}


def measure(context: Context, model: Path, text: Path, *options: object) -> dict:
    return json.loads(context.tamis("eval", model, "--data", text, "--json", *options))


def quantize(context: Context, source: Path, kind: str, name: str) -> Path:
    out = context.work / name
    context.tamis("quantize", source, "--to", kind, "--allow-requantize", "-o", out, "-q")
    return out


def perplexity(context: Context, model: Path, text: Path, *options: object) -> str:
    """What llama-perplexity prints. Keys and values in f32 and no flash attention, so that only weights are rounded."""
    command = [context.peer("llama-perplexity"), "-m", model, "-f", text, "-c", 512, "--chunks", WINDOWS, "-t", len(os.sched_getaffinity(0)),
               "-ctk", "f32", "-ctv", "f32", "-fa", "off", *options]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise Refused(f"llama-perplexity: exit {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done.stdout + done.stderr


def figure(text: str, label: str) -> tuple[float, float]:
    """'LABEL 27.8592 +/- 1.21964', or with ± or without an error."""
    found = re.search(re.escape(label) + r"\s*[:=]\s*(-?[0-9.]+)(?:\s*%?\s*(?:\+/-|±)\s*([0-9.]+))?", text)
    if not found:
        raise Refused(f"llama-perplexity prints no '{label}'")
    return float(found[1]), float(found[2] or 0)


def check_published(context: Context, table: Table) -> None:
    folder = context.options.pebble
    text = folder / "eval.txt"
    for style, expected in PERPLEXITY.items():
        ours = measure(context, folder, text, "--style", style, "--ctx", 512)["perplexity"]["value"]
        table.add(abs(ours - expected) <= 0.0051, "pebble", "folder", f"perplexity, {style}", f"{ours:.4f}", f"{expected:.2f}", f"{ours / expected - 1:+.1e}")
    for kind, expected in DIVERGENCE.items():
        quantized = quantize(context, folder, kind, f"pebble-{kind}.gguf")
        ours = measure(context, quantized, text, "--base", folder)["kl_divergence"]["mean"]
        bound = 0.1 if kind == "q8_0" else 0.02
        table.add(abs(ours / expected - 1) <= bound, "pebble", kind, "KL divergence", f"{ours:.7f}", f"{expected:g}", f"{ours / expected - 1:+.1e}")


def check_beside_llama(context: Context, table: Table, folder: Path, text: Path) -> None:
    name = folder.name
    base = quantize(context, folder, "f32", f"{name}-f32.gguf")
    logits = context.work / f"{name}.logits"
    of_base = figure(perplexity(context, base, text, "--kl-divergence-base", logits), "PPL")[0]
    for kind in ["f16", *(context.options.types or ["q8_0", "q4_k_m"])]:
        model = quantize(context, folder, kind, f"{name}-{kind}.gguf")
        theirs, error = figure(perplexity(context, model, text), "PPL")
        ours = measure(context, model, text, "--chunks", WINDOWS, "--base", folder)
        value = ours["perplexity"]["value"]
        bound = theirs * 0.001 if kind == "f16" else error
        table.add(abs(value - theirs) <= bound, name, kind, "perplexity", f"{value:.4f}", f"{theirs:.4f} ± {error:.4f}", f"{value / theirs - 1:+.1e}")
        if kind == "f16":
            continue
        decoded = quantize(context, model, "f32", f"{name}-decoded.gguf")
        printed = perplexity(context, decoded, text, "--kl-divergence-base", logits, "--kl-divergence")
        theirs, error = figure(printed, "Mean    KLD")
        value = ours["kl_divergence"]["mean"]
        # what llama-perplexity prints has six decimals, and its file of the base's logits 16 bits of each
        table.add(abs(value - theirs) <= max(theirs * 0.01, 1.5e-6), name, kind, "KL divergence", f"{value:.7f}", f"{theirs:.6f} ± {error:.6f}", f"{value / theirs - 1:+.1e}")
        for label, mine in (("Same top p", 100 * ours["same_top"]["value"]), ("RMS Δp", 100 * ours["rms_probability_change"]["value"])):
            theirs, error = figure(re.sub(r"RMS Δp +", "RMS Δp", printed), label)
            table.add(abs(mine - theirs) <= max(error / 5, 1e-3), name, kind, label, f"{mine:.5f}", f"{theirs:g} ± {error:g}", f"{mine - theirs:+.1e}")
        # from the perplexities of two runs: the file of logits knows nothing below e^-16 of the best token's probability, so that
        # "Mean ln(PPL(Q)/PPL(base))" is too large where the text has such a token
        mine, theirs = ours["ln_perplexity_ratio"]["value"], math.log(figure(printed, "Mean PPL(Q)")[0] / of_base)
        table.add(abs(mine - theirs) <= 1e-4, name, kind, "ln of the ratio of perplexities", f"{mine:.5f}", f"{theirs:.5f}", f"{mine - theirs:+.1e}")
        decoded.unlink()
    base.unlink()
    logits.unlink()


def main() -> int:
    context = start(__doc__, ["pebble"])
    table = Table(("model", "type", "figure", "tamis", "expected", "off by"))
    if "pebble" in context.models():
        check_published(context, table)
    for name in context.models():
        folder = context.model(name)
        text = folder / "eval.txt" if (folder / "eval.txt").exists() else Path(os.environ.get("EVAL_TEXT", ""))
        try:
            if not text.is_file():
                raise Refused("no eval.txt in it, and EVAL_TEXT names no file")
            check_beside_llama(context, table, folder, text)
        except Refused as refusal:
            table.add(False, folder.name, "", "", "", "", str(refusal))
    return table.finish("tamis eval beside transformers' figures and llama-perplexity")


if __name__ == "__main__":
    sys.exit(main())
