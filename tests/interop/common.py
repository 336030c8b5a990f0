"""What the interoperability programs share: the command line, running tamis, reading GGUF files, printing tables.

Every program here compares tamis with a program that people run today. Each prints one aligned table and exits
0 when everything held, 4 when a comparison failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# The models that tamis, llama.cpp and transformers all run, and whose logits agree to a few millionths.
MODELS = ["llama31", "llama2", "llama_bias", "mistral", "qwen2_tied", "qwen2_untied", "qwen2_sharded", "qwen3", "qwen3_yarn", "pebble"]

# Mixtures of experts, Gemma, Phi-3 and DeepSeek: the same, each with something that llama.cpp leaves out or does otherwise.
WIDER = ["mixtral", "qwen2_moe", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi3", "phi3_longrope", "deepseek_v2", "deepseek_v3",
         "deepseek_v3_fp8"]

# The file types of llama-quantize that need no importance weights, but for q2_k_s, which asks for them.
TYPES = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
         "q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "f16", "bf16", "f32"]

CHECK_FAILED = 4


class Refused(Exception):
    """A program ended with an error; the text is its last line."""


def run(*command: object, env: dict[str, str] | None = None) -> str:
    """Runs a command, returns what it printed, raises Refused with its last line when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace", env=env)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        raise Refused(f"exit {done.returncode}: {lines[-1]}")
    return done.stdout


@dataclass
class Context:
    """The parsed command line."""
    options: argparse.Namespace
    work: Path

    def tamis(self, *arguments: object) -> str:
        return run(self.options.tamis, *arguments)

    def peer(self, name: str) -> Path:
        """One of llama.cpp's programs, as run.sh built it."""
        return self.options.peers / "llama-build" / "bin" / name

    def llama_source(self) -> Path:
        """llama.cpp's source tree, as the package llama-cpp-python carries it."""
        trees = sorted(self.options.peers.glob("llama_cpp_python-*/vendor/llama.cpp"))
        if not trees:
            sys.exit(f"{self.options.peers}: no llama_cpp_python-*/vendor/llama.cpp; run.sh puts it there")
        return trees[-1]

    def model(self, name: str) -> Path:
        """Folder of a model: 'pebble', a folder of --arch-dir, or any path."""
        if name == "pebble":
            return self.options.pebble
        folder = self.options.arch_dir / name
        return folder if folder.is_dir() else Path(name)

    def models(self) -> list[str]:
        return self.options.models


def start(description: str, models: list[str] = MODELS) -> Context:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tamis", type=Path, default=REPOSITORY / "build/release/tamis", help="the program under test")
    parser.add_argument("--arch-dir", type=Path, default=REPOSITORY / "tests/golden/arch", help="folder of the tiny models")
    parser.add_argument("--pebble", type=Path, default=REPOSITORY / "models/pebble", help="folder of the model pebble")
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "tamis-peers",
                        help="where run.sh put the peers")
    parser.add_argument("--models", type=lambda text: text.split(","), default=models,
                        help="comma list: names in --arch-dir, 'pebble', or paths")
    parser.add_argument("--types", type=lambda text: text.split(","), default=None, help="comma list of types to try")
    parser.add_argument("--keep", type=Path, default=None, help="keep the files in this folder")
    options = parser.parse_args()
    if not options.tamis.is_file():
        sys.exit(f"{options.tamis}: no such program; build tamis or pass --tamis")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        return Context(options, options.keep)
    folder = tempfile.TemporaryDirectory(prefix="tamis-interop-")
    context = Context(options, Path(folder.name))
    context.folder = folder  # lives as long as the context, then removes the files
    return context


@dataclass
class Table:
    """Rows of text, printed with aligned columns; counts what failed."""
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    failed: int = 0
    passed: int = 0

    def add(self, good: bool, *cells: object) -> None:
        """A row; its last column says ok or FAILED."""
        self.passed += good
        self.failed += not good
        self.rows.append(tuple(str(cell) for cell in cells) + ("ok" if good else "FAILED",))

    def finish(self, title: str) -> int:
        lines = [self.header + ("",)] + self.rows
        widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
        print(f"\n{title}")
        for row in lines:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return CHECK_FAILED if self.failed or not self.passed else 0


@dataclass
class Tensor:
    type_name: str
    shape: tuple[int, ...]  # rows last, as GGUF has it: the fastest dimension first
    data: object            # numpy array as the Python package gguf hands it out

    def bytes(self) -> bytes:
        return self.data.tobytes()

    def values(self):
        """The weights in float32, decoded by the package gguf, slowest dimension first."""
        from gguf import quants, GGMLQuantizationType
        return quants.dequantize(self.data, GGMLQuantizationType[self.type_name]).reshape(self.shape[::-1])


def gguf_parts(path: Path) -> list[Path]:
    """The file, or the parts of a split whose common name it is."""
    parts = sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))
    if path.exists() and parts:
        raise Refused(f"{path.name}: both one file and parts are there")
    return parts or [path]


def read_gguf(path: Path) -> tuple[dict[str, tuple], dict[str, Tensor]]:
    """Keys as (type names, value) and tensors of a GGUF file or of all parts of a split, in file order."""
    from gguf import GGUFReader
    keys: dict[str, tuple] = {}
    tensors: dict[str, Tensor] = {}
    for part in gguf_parts(path):
        reader = GGUFReader(part)
        for name, one in reader.fields.items():
            if not name.startswith("GGUF."):
                keys.setdefault(name, (tuple(kind.name for kind in one.types), one.contents()))
        for one in reader.tensors:
            if one.name in tensors:
                raise Refused(f"{part.name}: tensor {one.name} is there twice")
            tensors[one.name] = Tensor(one.tensor_type.name, tuple(int(n) for n in one.shape), one.data)
    return keys, tensors


def first_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str | None:
    """Says in a few words where two sets of tensors first differ; None when they are equal."""
    for name, one in theirs.items():
        if name not in ours:
            return f"{name} is missing"
        mine = ours[name]
        if (mine.type_name, mine.shape) != (one.type_name, one.shape):
            return f"{name}: {mine.type_name}{list(mine.shape)}, theirs {one.type_name}{list(one.shape)}"
        a, b = mine.bytes(), one.bytes()
        if a != b:
            offset = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            n_differ = sum(x != y for x, y in zip(a, b)) if len(a) < 1 << 22 else -1
            return f"{name} ({one.type_name}): {n_differ} of {len(b)} bytes, first at {offset}"
    extra = [name for name in ours if name not in theirs]
    return f"{extra[0]} is too many" if extra else None
