"""tamis convert writes the keys and tensors that llama.cpp's convert_hf_to_gguf.py writes from the same folder.

The tokenizer's keys must be equal, name, type and value; so must the model's own keys and every tensor. Free are only
general.name and general.size_label, which both guess from the folder's name and the number of weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common import MODELS, WIDER, Context, Refused, Table, first_difference, read_gguf, run, start

PRE_TOKENIZER = "qwen2"  # what the byte-level vocabularies of these folders are; SentencePiece ones are not asked
FREE = {"general.name", "general.size_label", "general.basename", "general.finetune", "general.version"}


def keys_problem(ours: dict, theirs: dict) -> str:
    for name, (kinds, value) in theirs.items():
        if name not in ours:
            return f"{name} is missing"
        if ours[name][0] != kinds:
            return f"{name}: {ours[name][0]}, theirs {kinds}"
        mine = ours[name][1]
        if mine != value:
            if isinstance(value, list):
                at = next((i for i, (a, b) in enumerate(zip(mine, value)) if a != b), min(len(mine), len(value)))
                return f"{name}: length {len(mine)}, theirs {len(value)}; first difference at {at}: {mine[at:at + 1]}, theirs {value[at:at + 1]}"
            return f"{name}: {mine!r}, theirs {value!r}"
    extra = [name for name in ours if name not in theirs]
    return f"{extra[0]} is too many" if extra else ""


def part(keys: dict, of_tokenizer: bool) -> dict:
    return {name: value for name, value in keys.items() if name not in FREE and name.startswith("tokenizer.") == of_tokenizer}


def check(context: Context, table: Table, model: str) -> None:
    folder = context.model(model)
    ours, theirs = context.work / f"{folder.name}.tamis.gguf", context.work / f"{folder.name}.peer.gguf"
    try:
        run(sys.executable, Path(__file__).with_name("peer_convert.py"), context.llama_source(), PRE_TOKENIZER, folder,
            "--outtype", "f32", "--outfile", theirs, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        context.tamis("convert", folder, "--outtype", "f32", "-o", ours)
        our_keys, our_tensors = read_gguf(ours)
        their_keys, their_tensors = read_gguf(theirs)
    except Refused as refusal:
        table.add(False, folder.name, "", "", "", "", "", refusal)
        return
    tokenizer = keys_problem(part(our_keys, True), part(their_keys, True))
    others = keys_problem(part(our_keys, False), part(their_keys, False))
    tensors = first_difference(our_tensors, their_tensors) or ""
    if not tensors and list(our_tensors) != list(their_tensors):
        tensors = "tensors stand in another order"
    n_tokens = len(their_keys["tokenizer.ggml.tokens"][1])
    whole = "same bytes" if ours.read_bytes() == theirs.read_bytes() else "differs"  # may, by the free keys
    say = {True: "differ", False: "equal"}
    table.add(not (tokenizer or others or tensors), folder.name, n_tokens, say[bool(tokenizer)], say[bool(others)], say[bool(tensors)], whole,
              "; ".join(text for text in (tokenizer, others, tensors) if text))


def main() -> int:
    context = start(__doc__, MODELS + WIDER)
    table = Table(("model", "tokens", "tokenizer keys", "other keys", "tensors", "whole file", "first difference"))
    for model in context.models():
        check(context, table, model)
    return table.finish("tamis converts as llama.cpp does")


if __name__ == "__main__":
    sys.exit(main())
