"""tamis writes, tensor by tensor, the bytes and types that llama-quantize writes.

Three files per model and type: llama-quantize from the float32 GGUF file, tamis from the same file, and tamis straight from
the Hugging Face folder. Both of tamis's must have llama-quantize's tensors. A type that llama-quantize refuses (q2_k_s
without importance weights) tamis must refuse too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import MODELS, TYPES, Context, Refused, Table, first_difference, read_gguf, run, start


def attempt(out: Path, action) -> tuple[dict | None, str]:
    """The tensors of the file that the action writes, or None and why there is none."""
    try:
        action()
        return read_gguf(out)[1], ""
    except Refused as refusal:
        return None, str(refusal)


def verdict(ours: dict | None, why: str, theirs: dict | None) -> tuple[bool, str]:
    if theirs is None:
        return ours is None, "refused too" if ours is None else "llama-quantize refuses, tamis does not"
    if ours is None:
        return False, why
    difference = first_difference(ours, theirs)
    return difference is None, difference or "equal"


def check(context: Context, table: Table, model: str, f32: Path, kind: str) -> None:
    folder = context.model(model)
    outs = [context.work / f"{folder.name}.{kind}.{who}.gguf" for who in ("peer", "file", "folder")]
    theirs, _ = attempt(outs[0], lambda: run(context.peer("llama-quantize"), f32, outs[0], kind.upper(), 2))
    from_file, why_file = attempt(outs[1], lambda: context.tamis("quantize", f32, "--to", kind, "-o", outs[1]))
    from_folder, why_folder = attempt(outs[2], lambda: context.tamis("quantize", folder, "--to", kind, "-o", outs[2]))
    good_file, note_file = verdict(from_file, why_file, theirs)
    good_folder, note_folder = verdict(from_folder, why_folder, theirs)
    table.add(good_file and good_folder, folder.name, kind, len(theirs or {}), note_file, note_folder)
    if not context.options.keep:
        for out in outs:
            out.unlink(missing_ok=True)


def main() -> int:
    context = start(__doc__, MODELS)
    table = Table(("model", "type", "tensors", "tamis from the GGUF file", "tamis from the folder"))
    for model in context.models():
        folder = context.model(model)
        f32 = context.work / f"{folder.name}.f32.source.gguf"
        try:
            context.tamis("convert", folder, "--outtype", "f32", "-o", f32)
        except Refused as refusal:
            table.add(False, folder.name, "", "", "", f"convert: {refusal}")
            continue
        for kind in context.options.types or TYPES:
            check(context, table, model, f32, kind)
    return table.finish("tamis and llama-quantize write the same tensors")


if __name__ == "__main__":
    sys.exit(main())
