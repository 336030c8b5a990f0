"""Times `tamis eval` against llama-perplexity on the same files, in turns, and prints a table. Called by eval.sh; see README.md.

Needs nothing but Python's standard library. One measurement is one process from start to exit, over a text that is cut to the
windows that are asked for, so that neither reads tokens that it does not use.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from quantize_speed import machine, print_lines

CONTEXT = 512
PREDICTED = 255  # of each window: both compute logits for its second half alone


def measured(options: argparse.Namespace, command: list[object]) -> tuple[float, float, int, str]:
    """Wall seconds, CPU seconds and peak bytes of one run, and what it printed."""
    result = options.scratch / "measured"
    done = subprocess.run([str(part) for part in (options.measure, result, *command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        sys.exit("\n".join([f"{' '.join(map(str, command))}: exit {done.returncode}", *done.stderr.strip().splitlines()[-3:]]))
    wall, cpu, peak = result.read_text().split()
    return float(wall), float(cpu), int(peak), done.stdout + done.stderr


def cut_text(options: argparse.Namespace) -> Path:
    """The first lines of the text with the tokens that are needed and few more; llama-perplexity wants two windows at least."""
    whole, cut = options.data.read_bytes(), options.scratch / "eval.txt"
    needed = max(options.windows, 2) * CONTEXT + 8
    n_bytes = 3 * needed
    while True:
        end = whole.rfind(b"\n", 0, n_bytes) + 1 if n_bytes < len(whole) else len(whole)
        cut.write_bytes(whole[:end])
        done = subprocess.run([str(options.tamis), "tokenize", str(options.model), "--json"], stdin=cut.open("rb"), capture_output=True)
        if done.returncode != 0:
            sys.exit(done.stderr.decode(errors="replace").strip())
        if len(json.loads(done.stdout)["ids"]) >= needed:
            return cut
        if end == len(whole):
            sys.exit(f"{options.data}: {options.windows} windows of {CONTEXT} tokens need a longer text")
        n_bytes = n_bytes * 5 // 4


def weights(options: argparse.Namespace) -> tuple[int, int]:
    """Weights of the matrices of all blocks, and of the output layer."""
    done = subprocess.run([str(options.tamis), "inspect", str(options.model), "--json"], capture_output=True, text=True, check=True)
    blocks = output = embedding = 0
    for tensor in json.loads(done.stdout)["tensors"]:
        name, size = tensor["name"], tensor["elements"] if len(tensor["shape"]) == 2 else 0
        if name.startswith(("model.embed_tokens", "token_embd")):
            embedding = size
        elif name.startswith(("lm_head", "output.")):
            output = size
        else:
            blocks += size
    return blocks, output or embedding  # a tied embedding is the output layer


def run_case(options: argparse.Namespace, kind: str, text: Path, operations: float) -> dict:
    model = options.scratch / f"eval-{kind}.gguf"
    subprocess.run([str(options.tamis), "quantize", str(options.model), "--to", kind, "-o", str(model), "--force", "-q"], check=True)
    ours: list[tuple[float, float, int]] = []
    theirs: list[tuple[float, float, int]] = []
    perplexities = ["", ""]
    for repetition in range(options.repetitions):
        *numbers, printed = measured(options, [options.tamis, "eval", model, "--data", text, "--ctx", CONTEXT, "--chunks", options.windows,
                                               "--threads", options.threads, "-q"])
        ours.append(tuple(numbers))
        perplexities[0] = printed.split()[0]
        *numbers, printed = measured(options, [options.llama_perplexity, "-m", model, "-f", text, "-c", CONTEXT, "--chunks", options.windows,
                                               "-t", options.threads, "--no-warmup"])
        theirs.append(tuple(numbers))
        found = re.search(r"PPL = ([0-9.]+)", printed)
        perplexities[1] = found[1] if found else "?"
        if sys.stderr.isatty():
            print(f"\r{kind} {repetition + 1}/{options.repetitions}   ", end="", file=sys.stderr, flush=True)
    model.unlink()

    def about(samples: list[tuple[float, float, int]], perplexity: str) -> dict:
        best = min(sample[0] for sample in samples)
        return {"windows_per_second": options.windows / best, "seconds": best, "cpu_seconds": min(sample[1] for sample in samples),
                "peak_bytes": max(sample[2] for sample in samples), "gflops": operations / best / 1e9, "perplexity": perplexity,
                "samples": [sample[0] for sample in samples]}
    return {"type": kind, "tamis": about(ours, perplexities[0]), "llama_perplexity": about(theirs, perplexities[1])}


HEADER = [["", "tamis", "llama-p", "", "less", "tamis", "llama-p", "of the", "tamis", "llama-p", "tamis", "llama-p"],
          ["type", "windows/s", "windows/s", "ratio", "cpu", "GF/s", "GF/s", "peak", "MB", "MB", "perplexity", "perplexity"]]


def row(case: dict, peak: float) -> list[str]:
    ours, theirs = case["tamis"], case["llama_perplexity"]
    return [case["type"], f"{ours['windows_per_second']:.3f}", f"{theirs['windows_per_second']:.3f}", f"{theirs['seconds'] / ours['seconds']:.2f}x",
            f"{theirs['cpu_seconds'] / ours['cpu_seconds']:.2f}x", f"{ours['gflops']:.0f}", f"{theirs['gflops']:.0f}", f"{ours['gflops'] / peak:.0%}",
            f"{ours['peak_bytes'] / 1e6:.0f}", f"{theirs['peak_bytes'] / 1e6:.0f}", ours["perplexity"], theirs["perplexity"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--tamis", "--llama-perplexity", "--model", "--data", "--measure", "--peak", "--scratch"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--types", type=lambda text: text.split(","), default=["f16", "q8_0", "q4_k_m"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    about = machine()
    text = cut_text(options)
    blocks, output = weights(options)
    operations = 2.0 * options.windows * (blocks * CONTEXT + output * PREDICTED)
    peak = float(subprocess.run([str(options.peak), str(options.threads), "1"], capture_output=True, text=True, check=True).stdout)
    cases = [run_case(options, kind, text, operations) for kind in options.types]
    # the machine may have been slower when the peak was looked for than later
    peak = max(peak, float(subprocess.run([str(options.peak), str(options.threads), "1"], capture_output=True, text=True, check=True).stdout))
    text.unlink()
    if sys.stderr.isatty():
        print(f"\r{' ' * 40}\r", end="", file=sys.stderr)
    if options.json:
        print(json.dumps({"machine": about, "model": options.model.name, "weights": blocks + output, "threads": options.threads,
                          "windows": options.windows, "repetitions": options.repetitions, "peak_gflops": peak, "cases": cases}, indent=2))
        return 0
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load_before']:.1f} before the run; {options.model.name}, {(blocks + output) / 1e6:.0f} million weights; "
          f"{options.threads} threads, peak {peak:.0f} GF/s in f32; {options.windows} windows of {CONTEXT}, best of {options.repetitions} runs in turns")
    lines = HEADER + [row(case, peak) for case in cases]
    print_lines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
