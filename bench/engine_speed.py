"""Times tamis bench against llama-bench on one model in several types, in turns, and prints a table. Called by
engine.sh; see README.md.

Needs nothing but Python's standard library. One measurement is one process, which opens the model, warms up and measures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path
from statistics import median

from quantize_speed import print_lines

TYPES = ["f16", "q8_0", "q4_0", "q4_k_m", "q6_k", "iq4_xs", "iq2_xxs"]


def run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("\n".join([f"{' '.join(command)}: exit {done.returncode}", *done.stderr.strip().splitlines()[-3:]]))
    return done.stdout


def write_flat_importances(tamis: Path, model: Path, out: Path) -> None:
    """An importance matrix of ones, in llama-imatrix's first format: types of 2 bits are not made without one."""
    matrices = [t for t in json.loads(run([str(tamis), "inspect", str(model), "--json"]))["tensors"]
                if len(t["shape"]) == 2 and t["name"].startswith("blk.")]
    with out.open("wb") as file:
        file.write(struct.pack("<i", len(matrices)))
        for tensor in matrices:
            name, columns = tensor["name"].encode(), tensor["shape"][-1]
            file.write(struct.pack("<i", len(name)) + name + struct.pack("<ii", 1, columns) + struct.pack("<f", 1) * columns)


def make(options: argparse.Namespace, kind: str) -> Path:
    out = options.scratch / f"{options.model.stem}.{kind}.gguf"
    if out.exists() and out.stat().st_mtime > options.model.stat().st_mtime:
        return out
    command = [str(options.tamis), "quantize", str(options.model), "--to", kind, "-o", str(out), "-q"]
    if kind.startswith(("iq1", "iq2", "q2_k_s")):
        importances = options.scratch / "flat.imatrix"
        write_flat_importances(options.tamis, options.model, importances)
        command += ["--imatrix", str(importances)]
    run(command)
    return out


def measure_tamis(options: argparse.Namespace, model: Path, threads: int) -> dict:
    result = json.loads(run([str(options.tamis), "bench", str(model), "-p", str(options.prompt), "-n", str(options.text), "-t", str(threads),
                             "-r", "1", "--kv", "f16", "--json"]))["runs"][0]
    return {"prompt": result["prompt"]["tokens_per_second"]["mean"], "text": result["text"]["tokens_per_second"]["mean"],
            "bytes_per_second": result["text"]["weight_bytes_per_second"], "peak": result["peak_bytes_per_second"]}


def measure_llama(options: argparse.Namespace, model: Path, threads: int) -> dict:
    rows = json.loads(run([str(options.llama_bench), "-m", str(model), "-p", str(options.prompt), "-n", str(options.text), "-t", str(threads),
                           "-r", "1", "-o", "json"]))
    return {"prompt": next(r["avg_ts"] for r in rows if r["n_gen"] == 0), "text": next(r["avg_ts"] for r in rows if r["n_prompt"] == 0)}


def run_case(options: argparse.Namespace, kind: str, threads: int) -> dict:
    model = make(options, kind)
    tamis, llama = [], []
    for number in range(options.rounds):
        tamis.append(measure_tamis(options, model, threads))
        llama.append(measure_llama(options, model, threads))
        if sys.stderr.isatty():
            print(f"\r{kind} threads {threads} {number + 1}/{options.rounds}   ", end="", file=sys.stderr, flush=True)
    return {"type": kind, "threads": threads, "bytes": model.stat().st_size, "tamis": tamis, "llama": llama}


def row(case: dict) -> list[str]:
    def of(who: str, what: str) -> float:
        return median(sample[what] for sample in case[who])
    read, peak = of("tamis", "bytes_per_second"), max(sample["peak"] for sample in case["tamis"])
    return [case["type"], str(case["threads"]), f"{of('tamis', 'prompt'):.1f}", f"{of('llama', 'prompt'):.1f}",
            f"{of('tamis', 'prompt') / of('llama', 'prompt'):.2f}x", f"{of('tamis', 'text'):.1f}", f"{of('llama', 'text'):.1f}",
            f"{of('tamis', 'text') / of('llama', 'text'):.2f}x", f"{read / 1e9:.1f}", f"{read / peak:.0%}"]


HEADER = [["", "thr", "tamis", "llama", "ratio", "tamis", "llama", "ratio", "read", "of"],
          ["type", "", "prompt t/s", "t/s", "", "text t/s", "t/s", "", "GB/s", "peak"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tamis", type=Path, required=True)
    parser.add_argument("--llama-bench", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--types", type=lambda text: text.split(","), default=TYPES)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--text", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    cases = [run_case(options, kind, threads) for threads in options.threads for kind in options.types]
    if sys.stderr.isatty():
        print(f"\r{' ' * 40}\r", end="", file=sys.stderr)
    if options.json:
        print(json.dumps({"cpu": cpu, "cores": os.cpu_count(), "load_before": load, "model": options.model.name, "prompt": options.prompt,
                          "text": options.text, "rounds": options.rounds, "cases": cases}, indent=2))
        return 0
    print(f"{cpu}, {os.cpu_count()} cores, load {load:.1f} before the run; {options.model.name}; a prompt of {options.prompt} tokens, "
          f"a text of {options.text}; medians of {options.rounds} runs in turns")
    lines = HEADER + [row(case) for case in cases]
    print_lines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
