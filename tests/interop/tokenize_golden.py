"""Makes tests/golden/tokenizers with the libraries tokenizers and sentencepiece: tokenize_golden.py EXPECTED.jsonl

EXPECTED.jsonl: texts with pebble's ids as the library gives them (its "text", "ids", "decoded"); kept as pebble.jsonl.
steps.jsonl: pebble's vocabulary behind each normalizer and pre-tokenizer of tokenize_same.py.
FOLDER/expected.jsonl: small vocabularies with blocks for spaces, of both libraries.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from common import REPOSITORY, Context
from tokenize_same import STEPS, made, set_added, set_steps, texts, trained

OUT = REPOSITORY / "tests/golden/tokenizers"


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="ascii")


def rows_of(tokenizer, batch: list[str]) -> list[dict]:
    rows = []
    for text in batch:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        rows.append({"text": text, "ids": ids, **({"ids_special": special} if special != ids else {}), **({"decoded": decoded} if decoded != text else {})})
    return rows


def main() -> int:
    from tokenizers import Tokenizer
    import sentencepiece
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = [json.loads(line) for line in open(sys.argv[1], encoding="ascii")]
    write(OUT / "pebble.jsonl", [{"text": row["text"], "ids": row["ids"], **({"decoded": row["decoded"]} if row["decoded"] != row["text"] else {})} for row in rows])
    with tempfile.TemporaryDirectory() as work:
        context = Context(argparse.Namespace(), Path(work))
        batch = [text[:120] for text in texts(3, 1500)]
        steps = [{"texts": batch}]
        for name, (normalizer, pre) in STEPS.items():
            tokenizer = Tokenizer.from_file(str(made(context, name, lambda one: set_steps(one, normalizer, pre)) / "tokenizer.json"))
            steps.append({"name": name, "normalizer": normalizer, "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre},
                          "ids": [tokenizer.encode(text, add_special_tokens=False).ids for text in batch]})
        write(OUT / "steps.jsonl", steps)
        batch = [text[:200] for text in texts(4, 8000)]
        added = json.loads((made(context, "added", set_added) / "tokenizer.json").read_text(encoding="utf-8"))
        write(OUT / "added.jsonl", [{key: added[key] for key in ("added_tokens", "post_processor")}] +
              rows_of(Tokenizer.from_file(str(made(context, "added", set_added) / "tokenizer.json")), batch))
        folders = trained(context, 500)
        for name in ("bpe-legacy", "bpe-first-cut", "unigram"):
            (OUT / name).mkdir(exist_ok=True)
            whole = json.loads((folders[name] / "tokenizer.json").read_text(encoding="utf-8"))
            (OUT / name / "tokenizer.json").write_text(json.dumps(whole, separators=(",", ":")), encoding="ascii")
            write(OUT / name / "expected.jsonl", rows_of(Tokenizer.from_file(str(folders[name] / "tokenizer.json")), batch))
        for name, settings in {"spm-bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True),
                               "spm-unigram": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="nfkc")}.items():
            (OUT / name).mkdir(exist_ok=True)
            sentencepiece.SentencePieceTrainer.train(input=str(REPOSITORY / "models/pebble/calib.txt"), model_prefix=str(Path(work) / name), vocab_size=500,
                                                     minloglevel=3, user_defined_symbols=["<x>", "the▁x"], **settings)
            shutil.copy(Path(work) / f"{name}.model", OUT / name / "tokenizer.model")
            theirs = sentencepiece.SentencePieceProcessor(model_file=str(OUT / name / "tokenizer.model"))
            plain = [text.replace("\0", " ") for text in batch]
            for special in ("<s>", "</s>", "<unk>", "<x>"):
                plain = [text.replace(special, "x") for text in plain]
            write(OUT / name / "expected.jsonl", [{"text": text, "ids": theirs.encode(text)} for text in plain])
    return 0


if __name__ == "__main__":
    sys.exit(main())
