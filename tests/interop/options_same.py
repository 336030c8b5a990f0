"""With llama-quantize's own arguments, `tamis llama-quantize` writes the very file that llama-quantize writes.

Both get the same command line in the same order; the whole files are compared, key-values included.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import MODELS, Context, Refused, Table, run, start

CASES: dict[str, tuple[list[str], str]] = {
    "plain": ([], "Q4_K_M"),
    "number": ([], "15"),
    "alias": ([], "q3_k"),
    "copy": ([], "COPY"),
    "pure": (["--pure"], "Q5_K_S"),
    "leave output": (["--leave-output-tensor"], "Q4_K_S"),
    "output type": (["--output-tensor-type", "q8_0"], "Q4_0"),
    "embedding type": (["--token-embedding-type", "q5_0"], "Q4_1"),
    "tensor types": (["--tensor-type", "ffn_(up|down)=q8_0", "--tensor-type", "ATTN_v=q5_1"], "Q4_0"),
    "keys": (["--override-kv", "general.name=str:Other", "--override-kv", "a.int=int:-5", "--override-kv", "a.float=float:1.5",
              "--override-kv", "a.bool=bool:true"], "Q8_0"),
    "prune": (["--prune-layers", "1"], "Q8_0"),
}


def attempt(out: Path, *command: object) -> tuple[bytes | None, str]:
    out.unlink(missing_ok=True)
    try:
        run(*command)
        return out.read_bytes(), ""
    except Refused as refusal:
        return None, str(refusal)


def check(context: Context, table: Table, name: str, source: Path) -> None:
    out = context.work / "out.gguf"
    for case, (flags, kind) in CASES.items():
        theirs, _ = attempt(out, context.peer("llama-quantize"), *flags, source, out, kind, 2)
        ours, why = attempt(out, context.options.tamis, "llama-quantize", *flags, source, out, kind, 2)
        if theirs is None or ours is None:
            table.add(theirs is None and ours is None, name, case, kind, "both refuse" if theirs is None and ours is None else why)
            continue
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        table.add(ours == theirs, name, case, kind, "equal files" if ours == theirs else f"differ from byte {at}")


def main() -> int:
    context = start(__doc__, MODELS)
    table = Table(("model", "case", "type", "result"))
    for model in context.models():
        folder = context.model(model)
        source = context.work / f"{folder.name}.f32.gguf"
        try:
            context.tamis("convert", folder, "--outtype", "f32", "-o", source)
        except Refused as refusal:
            table.add(False, folder.name, "", "", f"convert: {refusal}")
            continue
        check(context, table, folder.name, source)
    return table.finish("tamis llama-quantize and llama-quantize write the same files")


if __name__ == "__main__":
    sys.exit(main())
