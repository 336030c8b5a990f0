"""tamis writes, tensor by tensor, the bytes and types that llama-quantize writes.

Both read the same GGUF files of four types, the Q8_0 one with --allow-requantize; tamis also goes straight from the Hugging
Face folder, which must give what llama-quantize gives from the float32 file. 'pure' stands for --pure. A type that
llama-quantize refuses (q2_k_s without importance weights) tamis must refuse too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import MODELS, WIDER, TYPES, Context, Refused, Table, first_difference, read_gguf, run, start

SOURCES = {"f32": [], "f16": [], "bf16": [], "q8_0": ["--allow-requantize"]}
PURE = ["q4_k_m pure", "q5_0 pure"]


def attempt(out: Path, *command: object) -> tuple[dict | None, str]:
    """The tensors of the file that the command writes, or None and why there is none."""
    out.unlink(missing_ok=True)
    try:
        run(*command)
        return read_gguf(out)[1], ""
    except Refused as refusal:
        return None, str(refusal)


def verdict(ours: dict | None, why: str, theirs: dict | None) -> tuple[bool, str]:
    if theirs is None:
        return ours is None, "both refuse" if ours is None else "llama-quantize refuses, tamis does not"
    if ours is None:
        return False, why[:70]
    difference = first_difference(ours, theirs)
    return difference is None, difference or "equal"


def check(context: Context, table: Table, folder: Path, sources: dict[str, Path], kind: str) -> None:
    out = context.work / "out.gguf"
    name, *pure = kind.split()
    flags = [f"--{flag}" for flag in pure]
    results, good = [], True
    for source, path in sources.items():
        extra = flags + SOURCES[source]
        theirs, _ = attempt(out, context.peer("llama-quantize"), *extra, path, out, name.upper(), 2)
        starts = [path, folder] if source == "f32" else [path]
        for begin in starts:
            ours, why = attempt(out, context.options.tamis, "quantize", begin, "--to", name, "-o", out, *extra)
            same, note = verdict(ours, why, theirs)
            good = good and same
            results.append(note)
    table.add(good, folder.name, kind, *results)


def main() -> int:
    context = start(__doc__, MODELS + [name for name in WIDER if name != "deepseek_v2"])
    table = Table(("model", "type", "from f32", "from the folder", "from f16", "from bf16", "from q8_0"))
    for model in context.models():
        folder = context.model(model)
        sources = {source: context.work / f"{folder.name}.{source}.gguf" for source in SOURCES}
        try:
            for source, path in sources.items():
                context.tamis("convert", folder, "--outtype", source, "-o", path)
        except Refused as refusal:
            table.add(False, folder.name, "", "", "", "", "", f"convert: {refusal}")
            continue
        for kind in context.options.types or TYPES + PURE:
            check(context, table, folder, sources, kind)
    return table.finish("tamis and llama-quantize write the same tensors")


if __name__ == "__main__":
    sys.exit(main())
