"""Times tamis's tokenizers against the library tokenizers on one text, in turns, and prints a table. Called by tokenize.sh."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread
import tokenizers  # noqa: E402

from quantize_speed import machine, print_lines  # noqa: E402


def fnv(ids: list[int]) -> int:
    value = 0xcbf29ce484222325
    for one in ids:
        value = (value ^ one) * 0x100000001b3 & 0xffffffffffffffff
    return value


class Ours:
    """tokenize_speed with a tokenizer just opened."""
    def __init__(self, options: argparse.Namespace, model: Path):
        self.process = subprocess.Popen([str(options.program), str(model), str(options.data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.asked = False

    def measure(self) -> tuple[float, int, int]:
        if self.asked:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        self.asked = True
        line = self.process.stdout.readline().split()
        if len(line) != 3:
            sys.exit("tokenize_speed failed")
        return float(line[0]), int(line[1]), int(line[2])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def run_case(options: argparse.Namespace, model: Path, text: str) -> dict:
    seconds: dict[str, list[float]] = {name: [] for name in ("cold", "cold_library", "warm", "warm_library")}
    for _ in range(options.repetitions):
        ours, library = Ours(options, model), tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
        for state in ("cold", "warm", "warm"):
            taken, n_ids, hashed = ours.measure()
            seconds[state].append(taken)
            start = time.thread_time()
            encoded = library.encode_batch_fast([text], add_special_tokens=False)[0]  # without offsets: the library's fastest
            seconds[state + "_library"].append(time.thread_time() - start)
        if (n_ids, hashed) != (len(encoded.ids), fnv(encoded.ids)):
            sys.exit(f"{model.name}: the ids differ")
        ours.close()
    return {"tokenizer": model.resolve().name, "ids": n_ids, "seconds": {name: min(values) for name, values in seconds.items()}, "samples": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=lambda names: [Path(name) for name in names.split(",")], required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about, text = machine(), options.data.read_bytes().decode()
    cases = [run_case(options, model, text) for model in options.models]
    n_bytes = options.data.stat().st_size
    if options.json:
        print(json.dumps({"machine": about, "tokenizers": tokenizers.__version__, "bytes": n_bytes, "cases": cases}, indent=2))
        return 0
    print(f"{about['cpu']}, load {about['load_before']:.1f} before the run; {n_bytes / 1e6:.2f} MB of text, one thread, "
          f"tokenizers {tokenizers.__version__}; best of {options.repetitions} runs in turns, CPU time")
    lines = [["", "", "first", "", "", "again", "", ""], ["tokenizer", "ids", "tamis MB/s", "library", "ratio", "tamis MB/s", "library", "ratio"]]
    for case in cases:
        cells = [case["tokenizer"], str(case["ids"])]
        for state in ("cold", "warm"):
            ours, theirs = case["seconds"][state], case["seconds"][state + "_library"]
            cells += [f"{n_bytes / ours / 1e6:.2f}", f"{n_bytes / theirs / 1e6:.2f}", f"{theirs / ours:.2f}x"]
        lines.append(cells)
    print_lines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
