"""Quantizes a folder into types by methods, measures each file with `tamis eval`, and prints a table. Called by quality.sh.

Needs nothing but Python's standard library. Results are lines of results.jsonl in the scratch folder; what is there already
for the same model, texts and numbers is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

GGUF = ["q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_xs", "q3_k_m", "iq3_m", "iq3_xxs", "q2_k", "iq2_m", "iq2_xs", "iq2_xxs"]
FOLDERS = ["gptq:4:g128", "gptq:3:g128", "gptq:2:g128", "awq:g128", "nf4"]
METHODS = ["llama", "rtn", "search", "gptq", "awq", "awq+gptq"]
REFUSALS = ["needs importance weights", "is for", "does not fit"]  # words of tamis where a method does not fit a type


def is_folder(kind: str) -> bool:
    return kind.split(":")[0] in ("gptq", "awq", "nf4", "fp4", "int8", "w4a16", "w8a8", "fp8", "nvfp4a16", "mxfp4a16")


def run(command: list[object], may_refuse: bool = False) -> str | None:
    """What the command printed; None if it may refuse and did. Anything else that fails ends the program."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return done.stdout
    tail = done.stderr.strip().splitlines()[-1:]
    if may_refuse and any(words in done.stderr for words in REFUSALS):
        print(*tail, file=sys.stderr)
        return None
    sys.exit("\n".join([f"{' '.join(map(str, command))}: exit {done.returncode}", *tail]))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def llama_source(options: argparse.Namespace) -> Path:
    """The folder as F16, which llama.cpp's programs read."""
    path = options.scratch / "source.f16.gguf"
    if not path.exists():
        run([options.tamis, "quantize", options.model, "--to", "f16", "-o", path, "-q"])
    return path


def made_once(path: Path, command: list[object]) -> Path:
    """Runs the command with a name at its end that becomes path when it is done: llama-imatrix writes one that is not finished, too."""
    if not path.exists():
        partial = path.with_name(f"partial-{path.name}")
        run([*command, partial])
        partial.rename(path)
    return path


def statistics(options: argparse.Namespace) -> Path:
    """Of tamis, for all types and all methods that need any."""
    return made_once(options.scratch / f"{options.samples}.stats",
                     [options.tamis, "calibrate", options.model, "--data", options.data, "--samples", options.samples, "--keep-hessian", "--threads",
                      options.threads, "-q", "-o"])


def imatrix(options: argparse.Namespace) -> Path:
    """Importance weights: llama-imatrix's if it is there, so that both sides have the same."""
    if not options.llama:
        return statistics(options)
    return made_once(options.scratch / f"{options.samples}.imatrix.gguf",
                     [options.llama / "llama-imatrix", "-m", llama_source(options), "-f", options.data, "-c", 512, "--chunks", options.samples, "-t",
                      options.threads, "-o"])


def make(options: argparse.Namespace, kind: str, method: str, out: Path) -> bool:
    if method == "llama":
        run([options.llama / "llama-quantize", "--imatrix", imatrix(options), llama_source(options), out, kind.upper(), options.threads])
        return True
    more: list[object] = []
    if method == "search":
        more = ["--imatrix", imatrix(options)]
    elif method != "rtn":
        more = ["--data", options.data, "--samples", options.samples] if options.walk else ["--stats", statistics(options)]
        if options.walk and not is_folder(kind):
            more += ["--imatrix", imatrix(options)]  # without one, file types choose other types for some tensors
    return run([options.tamis, "quantize", options.model, "--to", kind, "--method", method, *more, "--threads", options.threads, "-q", "-o", out],
               may_refuse=True) is not None


def size_of(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("*.safetensors")) if out.is_dir() else out.stat().st_size


def measure(options: argparse.Namespace, kind: str, method: str, about: dict) -> dict | None:
    """None: the method does not fit the type."""
    out = options.scratch / ("out" if is_folder(kind) else "out.gguf")
    remove(out)
    start = time.perf_counter()
    if not make(options, kind, method, out):
        return None
    seconds = time.perf_counter() - start
    found = json.loads(run([options.tamis, "eval", out, "--base", options.model, "--data", options.eval, "--chunks", options.chunks, "--threads",
                            options.threads, "--json", "-q"]) or "")
    line = about | {"type": kind, "method": method, "bytes": size_of(out), "seconds": round(seconds, 1), "perplexity": found["perplexity"]["value"],
                    "base_perplexity": found["base_perplexity"]["value"], "kl": found["kl_divergence"]["mean"],
                    "kl_error": found["kl_divergence"]["error"]}
    remove(out)
    return line


def print_table(lines: list[dict], markdown: bool) -> None:
    rows = [["type", "method", "MB", "perplexity", "KL divergence", "by llama-quantize's"]]
    for line in lines:
        peer = next((other["kl"] for other in lines if other["type"] == line["type"] and other["method"] == "llama"), None)
        ratio = f"{line['kl'] / peer:.2f}" if peer and line["method"] != "llama" else ""
        name = "llama-quantize" if line["method"] == "llama" else line["method"]
        rows.append([line["type"], name, f"{line['bytes'] / 1e6:.1f}", f"{line['perplexity']:.2f}", f"{line['kl']:.5f} ± {line['kl_error']:.5f}", ratio])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip())
        if markdown and number == 0:
            print("|" + "|".join("-" * (width + 2) if column < 2 else "-" * (width + 1) + ":" for column, width in enumerate(widths)) + "|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--tamis", "--scratch", "--model", "--data", "--eval"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--types", type=lambda text: text.split(","), default=GGUF + FOLDERS)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["llama", "rtn", "search", "gptq"])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--walk", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    for path in (options.data, options.eval):
        if not path.is_file():
            sys.exit(f"{path}: no such text")
    if unknown := [method for method in options.methods if method not in METHODS]:
        sys.exit(f"method {unknown[0]} is unknown: {', '.join(METHODS)}")

    about = {"model": options.model.name, "data": options.data.name, "samples": options.samples, "eval": options.eval.name, "chunks": options.chunks,
             "walk": options.walk}
    results = options.scratch / "results.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    lines = []
    for kind in options.types:
        for method in options.methods:
            if (method == "llama" and (not options.llama or is_folder(kind))) or (method == "search" and is_folder(kind)):
                continue
            wanted = about | {"type": kind, "method": method}
            line = next((line for line in known if all(line.get(key) == value for key, value in wanted.items())), None)
            if not line and (line := measure(options, kind, method, about)):
                with results.open("a") as out:
                    out.write(json.dumps(line) + "\n")
            if line:
                lines.append(line)
    if lines:
        print(f"{options.model.name}: perplexity of the base {lines[0]['base_perplexity']:.2f}; {options.samples} sequences of {options.data.name}, "
              f"{options.chunks} windows of {options.eval.name}\n")
    print_table(lines, options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
