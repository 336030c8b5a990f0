"""With importance weights too, tamis writes the tensors and keys that llama-quantize writes.

Both get the same GGUF model and the same matrix: pebble's as llama-imatrix made it, in both formats; and for a small
mixture of experts (random weights, 8 experts) a matrix in which some experts were never seen. The cases behind the types
leave entries out, or damage the matrix: what llama-quantize refuses, tamis must refuse too.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from common import REPOSITORY, TYPES, Context, Refused, Table, Tensor, first_difference, read_gguf, run, start

# All that llama-quantize writes but q2_0, which the Python package gguf cannot read yet.
ALL_TYPES = TYPES + ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m",
                     "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4_moe", "q1_0"]
COLUMNS, ROWS, N_EXPERTS, N_LAYERS = 256, 256, 8, 8


@dataclass
class Entry:
    """One weight's part of a matrix: sums of squares [matrices, columns], tokens [matrices] or [1]."""
    sums: np.ndarray
    counts: np.ndarray


@dataclass
class Matrix:
    entries: dict[str, Entry]
    dataset: str = "random.txt"
    n_chunks: int = 17
    n_calls: int = 17

    def write_gguf(self, path: Path) -> Path:
        writer = GGUFWriter(path, "imatrix")
        writer.kv_data[0].pop("general.architecture", None)
        writer.add_type("imatrix")
        writer.add_key_value("imatrix.datasets", [self.dataset], GGUFValueType.ARRAY, GGUFValueType.STRING)
        writer.add_uint32("imatrix.chunk_count", self.n_chunks)
        writer.add_uint32("imatrix.chunk_size", 512)
        for name, entry in sorted(self.entries.items()):
            columns = entry.sums.size // entry.counts.size
            writer.add_tensor(f"{name}.in_sum2", entry.sums.astype(np.float32).reshape(entry.counts.size, columns))
            writer.add_tensor(f"{name}.counts", entry.counts.astype(np.float32).reshape(-1, 1))
        finish(writer)
        return path

    def write_dat(self, path: Path) -> Path:
        """As llama-imatrix --output-format dat: means times calls, 1 for experts never seen."""
        out = [struct.pack("<i", len(self.entries))]
        for name, entry in self.entries.items():
            counts = entry.counts.astype(np.float32)[:, None]
            sums = entry.sums.astype(np.float32).reshape(entry.counts.size, -1)
            means = np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(1)) * np.float32(self.n_calls)
            out += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", self.n_calls, means.size),
                    means.astype("<f4").tobytes()]
        out.append(struct.pack("<ii", self.n_chunks, len(self.dataset)) + self.dataset.encode())
        path.write_bytes(b"".join(out))
        return path


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_experts(path: Path) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """A model of llama.cpp's architecture qwen3moe with random weights, and the shapes of its matrices."""
    random = np.random.default_rng(8)
    writer = GGUFWriter(path, "qwen3moe")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(COLUMNS)
    writer.add_feed_forward_length(2 * COLUMNS)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    writer.add_key_length(32)
    writer.add_value_length(32)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_count(N_EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_expert_feed_forward_length(ROWS)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (64, COLUMNS), "output.weight": (64, COLUMNS)}
    for layer in range(N_LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in {
            "attn_q": (COLUMNS, COLUMNS), "attn_k": (64, COLUMNS), "attn_v": (64, COLUMNS), "attn_output": (COLUMNS, COLUMNS),
            "ffn_gate_inp": (N_EXPERTS, COLUMNS), "ffn_gate_exps": (N_EXPERTS, ROWS, COLUMNS),
            "ffn_up_exps": (N_EXPERTS, ROWS, COLUMNS), "ffn_down_exps": (N_EXPERTS, COLUMNS, ROWS)}.items()}
        for name, n in {"attn_norm": COLUMNS, "ffn_norm": COLUMNS, "attn_q_norm": 32, "attn_k_norm": 32}.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(n, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(COLUMNS, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(name, (random.standard_normal(shape) * 0.05).astype(np.float32))
    finish(writer)
    return path, shapes


def experts_matrix(shapes: dict[str, tuple[int, ...]]) -> Matrix:
    """Sums of squares over a spread of sizes; in odd layers experts 2 and 5 were never seen, and one weight never at all."""
    random = np.random.default_rng(9)
    entries = {}
    for name, shape in shapes.items():
        if name in ("token_embd.weight", "output.weight"):  # llama-imatrix never sees the one, and the other on demand
            continue
        n_mats = shape[0] if len(shape) == 3 else 1
        counts = random.integers(1, 9000, n_mats).astype(np.float32)
        if n_mats > 1 and int(name.split(".")[1]) % 2:
            counts[[2, 5]] = 0
        sums = np.exp(random.normal(0, 2, (n_mats, shape[-1]))) * counts[:, None]
        entries[name] = Entry(sums.astype(np.float32), counts)
    entries["blk.3.attn_q.weight"].counts[:] = 0
    stacked = entries["blk.4.ffn_up_exps.weight"]  # values for each matrix, but one count
    stacked.counts = stacked.counts[:1] + 1
    return Matrix(entries)


@dataclass
class Case:
    """One way to call both programs."""
    matrix: Path
    to: str
    flags: list[str] = field(default_factory=list)


@dataclass
class Written:
    tensors: dict[str, Tensor]
    keys: list[tuple]


def attempt(out: Path, *command: object) -> tuple[Written | None, str]:
    """What the command writes, or None and why there is nothing."""
    out.unlink(missing_ok=True)
    try:
        run(*command)
        keys, tensors = read_gguf(out)
        return Written(tensors, [(key, *value) for key, value in keys.items() if key.startswith("quantize.")]), ""
    except Refused as refusal:
        return None, str(refusal)


def compare(context: Context, model: Path, case: Case, *others: Path) -> list[tuple[bool, str]]:
    """What tamis makes from the model, and from `others` that must give the same, against what llama-quantize makes."""
    out = context.work / "out.gguf"
    theirs, _ = attempt(out, context.peer("llama-quantize"), "--imatrix", case.matrix, *case.flags, model, out,
                        case.to.upper(), 2)
    results = []
    for begin in (model, *others):
        ours, why = attempt(out, context.options.tamis, "quantize", begin, "--to", case.to, "--imatrix", case.matrix,
                            *case.flags, "-o", out)
        results.append(verdict(ours, why, theirs))
    return results


def verdict(ours: Written | None, why: str, theirs: Written | None) -> tuple[bool, str]:
    if theirs is None:
        return ours is None, "both refuse" if ours is None else "llama-quantize refuses, tamis does not"
    if ours is None:
        return False, why[:90]
    difference = first_difference(ours.tensors, theirs.tensors)
    if difference is None and ours.keys != theirs.keys:
        difference = f"keys {ours.keys}, theirs {theirs.keys}"
    return difference is None, difference or "equal"


def check_pebble(context: Context, table: Table) -> None:
    folder, golden = context.model("pebble"), REPOSITORY / "tests/golden/imatrix"
    model = context.work / "pebble.f32.gguf"
    context.tamis("convert", folder, "--outtype", "f32", "-o", model)
    for to in context.options.types or ALL_TYPES:
        results = [*compare(context, model, Case(golden / "pebble.gguf", to), folder),
                   *compare(context, model, Case(golden / "pebble.dat", to))]
        table.add(all(good for good, _ in results), "pebble", to, *(note for _, note in results))


def check_experts(context: Context, table: Table) -> None:
    model, shapes = write_experts(context.work / "experts.f32.gguf")
    matrix = experts_matrix(shapes)
    as_gguf = matrix.write_gguf(context.work / "experts.gguf")
    as_dat = matrix.write_dat(context.work / "experts.dat")
    for to in context.options.types or ALL_TYPES:
        results = [*compare(context, model, Case(as_gguf, to)), *compare(context, model, Case(as_dat, to))]
        table.add(all(good for good, _ in results), "experts", to, results[0][1], "", results[1][1])
    check_cases(context, table, model, matrix, as_gguf)


def damaged(context: Context, matrix: Matrix, name: str, **changes: Entry) -> tuple[Path, Path]:
    """The matrix with other entries, in both formats."""
    other = Matrix(matrix.entries | {key.replace("_at_", "."): entry for key, entry in changes.items()})
    return (other.write_gguf(context.work / f"{name}.gguf"), other.write_dat(context.work / f"{name}.dat"))


def check_cases(context: Context, table: Table, model: Path, matrix: Matrix, as_gguf: Path) -> None:
    def row(what: str, to: str, first: Path, second: Path | None, *flags: str) -> None:
        results = [compare(context, model, Case(path, to, list(flags)))[0] for path in (first, second) if path]
        table.add(all(good for good, _ in results), what, to, results[0][1], "", results[1][1] if second else "")

    query = matrix.entries["blk.0.attn_q.weight"]
    ones = np.ones((1, COLUMNS), np.float32)
    bad = {
        "not a number": Entry(np.where(np.arange(COLUMNS) == 7, np.nan, query.sums), query.counts),
        "infinity": Entry(np.where(np.arange(COLUMNS) == 7, np.inf, query.sums), query.counts),
        "another size": Entry(ones[:, :128], query.counts),
    }
    for what, entry in bad.items():
        files = damaged(context, matrix, what.replace(" ", "-"), **{"blk_at_0_at_attn_q_at_weight": entry})
        row(what, "q4_k_m", *files)
        row(what + ", left out", "q4_k_m", *files, "--exclude-weights", "blk.0.attn_q.")
    row("embeddings of another size", "q4_k_m",
        *damaged(context, matrix, "embeddings", token_embd_at_weight=Entry(ones[:, :128], query.counts)))
    row("embeddings and output", "q4_k_m",
        *damaged(context, matrix, "both-ends", token_embd_at_weight=query, output_at_weight=query))
    row("include", "iq4_xs", as_gguf, None, "--include-weights", "attn_q", "--include-weights", "blk.1.")
    row("exclude", "q3_k_m", as_gguf, None, "--exclude-weights", "attn_q", "--exclude-weights", "blk.1.")
    row("an entry missing", "iq2_xxs", as_gguf, None, "--exclude-weights", "blk.1.attn_q.")
    row("an entry missing", "iq3_s", as_gguf, None, "--exclude-weights", "blk.1.attn_q.")
    row("layers pruned", "q4_k_m", as_gguf, None, "--prune-layers", "1,4")
    row("pure", "q2_k", as_gguf, None, "--pure")
    name = context.work / ("a-long-name-" * 14 + ".gguf")
    row("a long name", "q4_0", Path(as_gguf.rename(name)), None)
    name.rename(as_gguf)


def main() -> int:
    context = start(__doc__, ["pebble", "experts"])
    table = Table(("model or case", "type", "GGUF matrix", "from the folder", ".dat matrix"))
    if "pebble" in context.models():
        check_pebble(context, table)
    if "experts" in context.models():
        check_experts(context, table)
    return table.finish("tamis and llama-quantize use importance weights alike")


if __name__ == "__main__":
    sys.exit(main())
