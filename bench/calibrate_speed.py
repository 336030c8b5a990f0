"""Times `tamis quantize --method gptq` against GPTQModel on the same sequences, in turns. Called by calibrate.sh; see README.md.

Needs nothing but Python's standard library; GPTQModel runs in the Python that --python names (calibrate_peer.py). One
measurement is one process from start to exit; of GPTQModel also what its imports leave.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from quantize_speed import machine, print_lines

MEGABYTE = 1e6


def measured(options: argparse.Namespace, command: list[object]) -> tuple[dict, str]:
    """Wall seconds, CPU seconds and peak bytes of one run, and what it printed."""
    result, log = options.scratch / "measured", options.scratch / "calibrate.log"
    with log.open("wb") as to:
        done = subprocess.run([str(part) for part in (options.measure, result, *command)], stdin=subprocess.DEVNULL, stdout=to, stderr=to,
                              cwd=options.scratch)  # GPTQModel leaves logs where it is
    printed = log.read_text(errors="replace")
    if done.returncode != 0:
        sys.exit("\n".join([f"{' '.join(map(str, command))}: exit {done.returncode}", *printed.strip().splitlines()[-3:]]))
    wall, cpu, peak = result.read_text().split()
    for path in (result, log):
        path.unlink()
    return {"seconds": float(wall), "cpu_seconds": float(cpu), "peak_bytes": int(peak)}, printed


def token_ids(options: argparse.Namespace, *more: str) -> list[int]:
    with options.data.open("rb") as text:
        done = subprocess.run([str(options.tamis), "tokenize", str(options.model), "--json", *more], stdin=text, capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stderr.decode(errors="replace").strip())
    return json.loads(done.stdout)["ids"]


def cut(options: argparse.Namespace) -> list[list[int]]:
    """The sequences that tamis takes from the text: cut to one length, with BOS in front if the vocabulary adds one."""
    plain, special = token_ids(options), token_ids(options, "--special")
    opens = special[:1] != plain[:1]
    ids, n = (special if opens else plain), options.seqlen
    if len(ids) // n < options.samples:
        sys.exit(f"{options.data}: {options.samples} sequences of {n} tokens need a longer text ({len(ids)} tokens)")
    sequences = [ids[i * n:(i + 1) * n] for i in range(options.samples)]
    return [[special[0], *s[1:]] for s in sequences] if opens else sequences


def best(samples: list[dict]) -> dict:
    about = {name: min(sample[name] for sample in samples) for name in samples[0]}
    return about | {"peak_bytes": max(sample["peak_bytes"] for sample in samples), "samples": samples}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--tamis", "--python", "--model", "--data", "--measure", "--scratch"):
        parser.add_argument(name, type=Path, required=True)
    for name, number in (("--samples", 128), ("--seqlen", 512), ("--bits", 4), ("--group", 128), ("--threads", os.cpu_count()), ("--repetitions", 1)):
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, Path) and os.sep in str(value):
            setattr(options, name, value.absolute())

    about = machine()
    ids, folders = options.scratch / "ids.json", [options.scratch / "gptq-tamis", options.scratch / "gptq-peer"]
    ids.write_text(json.dumps(cut(options)))
    commands = [[options.tamis, "quantize", options.model, "--to", f"gptq:{options.bits}:g{options.group}", "--method", "gptq", "--data", options.data,
                 "--samples", options.samples, "--seqlen", options.seqlen, "--threads", options.threads, "-q", "-o", folders[0]],
                [options.python, "-B", Path(__file__).with_name("calibrate_peer.py"), options.model, ids, folders[1], options.bits, options.group,
                 options.threads]]
    few = options.scratch / "few.json"  # GPTQModel compiles an extension when it runs first
    few.write_text(json.dumps(json.loads(ids.read_text())[:2]))
    measured(options, [few if part == ids else part for part in commands[1]])
    few.unlink()
    samples: list[list[dict]] = [[], []]
    sizes, version = [0, 0], ""
    for repetition in range(options.repetitions):
        for who, command in enumerate(commands):
            shutil.rmtree(folders[who], ignore_errors=True)
            if sys.stderr.isatty():
                print(f"\r{('tamis', 'GPTQModel')[who]} {repetition + 1}/{options.repetitions}   ", end="", file=sys.stderr, flush=True)
            numbers, printed = measured(options, command)
            if who == 1:
                told = json.loads(printed.strip().splitlines()[-1])
                version = told["version"]
                numbers["without_imports_seconds"] = told["seconds"]
            samples[who].append(numbers)
            sizes[who] = folder_bytes(folders[who])
            shutil.rmtree(folders[who])
    ids.unlink()
    if sys.stderr.isatty():
        print(f"\r{' ' * 40}\r", end="", file=sys.stderr)
    ours, theirs = best(samples[0]), best(samples[1])
    if options.json:
        print(json.dumps({"machine": about, "model": options.model.name, "samples": options.samples, "seqlen": options.seqlen, "bits": options.bits,
                          "group": options.group, "threads": options.threads, "repetitions": options.repetitions, "gptqmodel_version": version,
                          "bytes": {"tamis": sizes[0], "gptqmodel": sizes[1]}, "tamis": ours, "gptqmodel": theirs}, indent=2))
        return 0
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load_before']:.1f} before the run; {options.model.name}, {options.samples} sequences of "
          f"{options.seqlen} tokens, {options.bits} bits in groups of {options.group}; {options.threads} threads, best of {options.repetitions} runs in turns")
    inner = theirs["without_imports_seconds"]
    lines = [["", "tamis", f"GPTQModel {version}", "ratio"],
             ["start to exit, s", f"{ours['seconds']:.1f}", f"{theirs['seconds']:.1f}", f"{theirs['seconds'] / ours['seconds']:.2f}x"],
             ["without imports, s", f"{ours['seconds']:.1f}", f"{inner:.1f}", f"{inner / ours['seconds']:.2f}x"],
             ["cpu, s", f"{ours['cpu_seconds']:.1f}", f"{theirs['cpu_seconds']:.1f}", f"{theirs['cpu_seconds'] / ours['cpu_seconds']:.2f}x"],
             ["peak, MB", *(f"{side['peak_bytes'] / MEGABYTE:.0f}" for side in (ours, theirs)), f"{ours['peak_bytes'] / theirs['peak_bytes']:.2f}"],
             ["written, MB", *(f"{size / MEGABYTE:.1f}" for size in sizes), f"{sizes[0] / sizes[1]:.2f}"]]
    print_lines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
