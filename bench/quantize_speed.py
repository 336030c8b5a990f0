"""Times tamis against llama-quantize on one file, in turns, and prints a table. Called by run.sh; see README.md.

Needs nothing but Python's standard library. One measurement is one process from start to exit; then the time until its
output is on the disk is added, because one program may wait for that itself and the other not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

TYPES = ["q8_0", "q4_0", "q4_k_m", "q6_k", "f16"]
COPY_CHUNK = 1 << 20


@dataclass
class Samples:
    """The repetitions of one program on one case."""
    seconds: list[float] = field(default_factory=list)          # start to exit
    on_disk_seconds: list[float] = field(default_factory=list)  # start to exit, then fsync
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    def summary(self) -> dict:
        return {name: {"median": median(values), "samples": values} for name, values in vars(self).items() if values}


def flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def measure(options: argparse.Namespace, command: list[str], out: Path, samples: Samples) -> int:
    """Runs the command once, which must write the file out. Returns the file's size and removes it."""
    log, result = out.with_suffix(".log"), out.with_suffix(".measured")
    with log.open("wb") as log_file:
        done = subprocess.run([str(options.measure), str(result), *command], stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file)
    if done.returncode != 0 or not out.exists():
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        sys.exit("\n".join([f"{' '.join(command)}: exit {done.returncode}", *tail]))
    start = time.perf_counter()
    flush(out)
    flush_seconds = time.perf_counter() - start
    wall, cpu, peak = result.read_text().split()
    samples.seconds.append(float(wall))
    samples.on_disk_seconds.append(float(wall) + flush_seconds)
    samples.cpu_seconds.append(float(cpu))
    samples.peak_bytes.append(int(peak))
    size = out.stat().st_size
    for path in (out, log, result):
        path.unlink()
    return size


def copy_part(source: int, target: int, part: int, n_parts: int, n_in: int, n_out: int) -> None:
    """Reads the part's bytes in chunks, and after each writes as many bytes as the output's size asks for."""
    buffer = bytearray(COPY_CHUNK)
    at, end = n_in * part // n_parts, n_in * (part + 1) // n_parts
    written, write_end = n_out * part // n_parts, n_out * (part + 1) // n_parts
    while at < end:
        n_read = os.preadv(source, [memoryview(buffer)[:min(COPY_CHUNK, end - at)]], at)
        at += n_read
        due = write_end if at >= end else max(written, n_out * at // n_in)
        while written < due:
            written += os.pwrite(target, memoryview(buffer)[:min(COPY_CHUNK, due - written)], written)


def measure_copy(model: Path, out: Path, n_out: int, n_threads: int, samples: Samples) -> None:
    """The limit: reading the model and writing as many bytes as the quantized file has, with nothing between."""
    start = time.perf_counter()
    source, target = os.open(model, os.O_RDONLY), os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    n_in = model.stat().st_size
    workers = [threading.Thread(target=copy_part, args=(source, target, part, n_threads, n_in, n_out)) for part in range(n_threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    samples.seconds.append(time.perf_counter() - start)
    os.fsync(target)
    samples.on_disk_seconds.append(time.perf_counter() - start)
    os.close(source)
    os.close(target)
    out.unlink()


def run_case(options: argparse.Namespace, kind: str, n_threads: int) -> dict:
    out = options.scratch / "out.gguf"
    tamis_command = [str(options.tamis), "quantize", str(options.model), "--to", kind, "-o", str(out), "--threads", str(n_threads), "-q"]
    peer_command = [str(options.llama_quantize), str(options.model), str(out), kind.upper(), str(n_threads)]
    tamis, peer, copy = Samples(), Samples(), Samples()
    for repetition in range(options.repetitions):
        tamis_size = measure(options, tamis_command, out, tamis)
        peer_size = measure(options, peer_command, out, peer)
        measure_copy(options.model, out, tamis_size, n_threads, copy)
        if sys.stderr.isatty():
            print(f"\r{kind} threads {n_threads} {repetition + 1}/{options.repetitions}   ", end="", file=sys.stderr, flush=True)
    return {"type": kind, "threads": n_threads, "bytes_in": options.model.stat().st_size, "bytes_out": tamis_size,
            "llama_quantize_bytes_out": peer_size, "tamis": tamis.summary(), "llama_quantize": peer.summary(), "copy": copy.summary()}


def row(case: dict) -> list[str]:
    def of(who: str, what: str) -> float:
        return case[who][what]["median"]
    ours, theirs = of("tamis", "seconds"), of("llama_quantize", "seconds")
    ours_disk, theirs_disk = of("tamis", "on_disk_seconds"), of("llama_quantize", "on_disk_seconds")
    ours_peak, theirs_peak = of("tamis", "peak_bytes"), of("llama_quantize", "peak_bytes")
    return [case["type"], str(case["threads"]), f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}x",
            f"{of('llama_quantize', 'cpu_seconds') / of('tamis', 'cpu_seconds'):.2f}x",
            f"{ours_disk:.2f}", f"{theirs_disk:.2f}", f"{theirs_disk / ours_disk:.2f}x",
            f"{case['bytes_in'] / ours / 1e6:.0f}", f"{of('copy', 'on_disk_seconds'):.2f}", f"{of('copy', 'on_disk_seconds') / ours_disk:.0%}",
            f"{ours_peak / 1e6:.0f}", f"{theirs_peak / 1e6:.0f}", f"{ours_peak / theirs_peak:.2f}"]


HEADER = [["", "thr", "tamis", "llama-q", "faster", "less cpu", "tamis", "llama-q", "faster", "tamis", "copy", "of the", "tamis", "llama-q", "ratio"],
          ["type", "", "s", "s", "", "", "disk s", "disk s", "", "MB/s", "disk s", "limit", "MB", "MB", ""]]


def print_lines(lines: list[list[str]]) -> None:
    """A table: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def machine() -> dict:
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "system": platform.release()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tamis", type=Path, required=True)
    parser.add_argument("--llama-quantize", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--measure", type=Path, required=True, help="the program made from measure.c")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--types", type=lambda text: text.split(","), default=TYPES)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    about = machine()
    flush(options.model)
    cases = [run_case(options, kind, n_threads) for n_threads in options.threads for kind in options.types]
    if sys.stderr.isatty():
        print(f"\r{' ' * 40}\r", end="", file=sys.stderr)
    if options.json:
        print(json.dumps({"machine": about, "model": options.model.name, "repetitions": options.repetitions, "cases": cases}, indent=2))
        return 0
    size = options.model.stat().st_size
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load_before']:.1f} before the run; {options.model.name}, {size / 1e9:.2f} GB; "
          f"medians of {options.repetitions} runs in turns")
    print_lines(HEADER + [row(case) for case in cases])
    return 0


if __name__ == "__main__":
    sys.exit(main())
