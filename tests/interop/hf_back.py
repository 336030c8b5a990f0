"""transformers computes from the folder that tamis restores from a GGUF file what it computes from the source folder.

Folder -> GGUF -> folder, in the source's own type. Three questions per model:
  logits      from_pretrained takes the folder, and its logits are the source's, bit for bit;
  ids         the tokenizer gives the same ids for some hundred texts, with special tokens and without;
  decoded     and makes the same texts of them.
A path among --models that holds a tokenizer but no weights gets a tiny model around it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaTokenizer  # noqa: E402
from transformers.utils import logging  # noqa: E402

from common import MODELS, WIDER, Context, Refused, Table, start  # noqa: E402

logging.disable_progress_bar()
logging.set_verbosity_error()

N_TOKENS = 64
N_RANDOM = 300
SHORT_NAMES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
ALPHABETS = ["abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " \t\n\r", ".,;:!?'\"()[]{}<>|/\\-_=+*&%$#@^~`",
             "äöüßéèñçøåœ", "αβγδεζηθ", "абвгдежзий", "你好世界日本語かなカナ", "한국어", "नमस्ते", "שלום", "مرحبا", "😀👍🏽👨‍👩‍👧", "\u0301\u0308\u200d\u00a0\u3000"]


def texts(special: list[str]) -> list[str]:
    """The same on every run: sentences, code, numbers, white space, scripts, special tokens, random mixtures."""
    source = random.Random(11)
    fixed = ["", " ", "  ", "\n", "\n\n  x", "Hello, world!", " Hello", "don't I'll we've HE'S 'Tis", "1234567890 3.14159 1,000,000",
             "def f(x):\n    return x ** 2  # square\n", "e\u0301 \u00e9 \ufb01", "a" * 300, "\t\ttabs\r\nand lines\r", "x\u00a0y\u2003z",
             "https://example.org/a?b=c&d=%20", "$\\frac{1}{2}$ <b>bold</b>", "été naïve coöperate", "<0x41> ▁ ▁▁x"]
    for token in special[:12]:
        fixed += [token, f"a {token} b", f"{token}{token}x"]
    for _ in range(N_RANDOM):
        alphabets = source.sample(ALPHABETS, source.randint(1, 4)) + [" "]
        fixed.append("".join(source.choice(source.choice(alphabets)) for _ in range(source.randint(1, 120))))
    return fixed


def around(tokenizer: Path, folder: Path) -> Path:
    """A folder with this tokenizer and the smallest model that has its vocabulary."""
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("config.json"), dirs_exist_ok=True)
    size = len(AutoTokenizer.from_pretrained(tokenizer))
    config = LlamaConfig(vocab_size=size, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
                         max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def logits(folder: Path, tokens: list[int]) -> torch.Tensor:
    """In the type of the weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def tokenizer_of(folder: Path):
    """As the folder's settings name it. For Mistral's model_type transformers 5.23 takes another class than they name, and
    that one leaves out the space in front of the text, which tokenizer.model asks for."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    one = LlamaTokenizer if settings.get("tokenizer_class") == "LlamaTokenizer" else AutoTokenizer
    return one.from_pretrained(folder)


def check(context: Context, table: Table, name: str) -> None:
    folder = context.model(name)
    if not list(folder.glob("*.safetensors")):
        folder = around(folder, context.work / f"{folder.name}.source")
    gguf, back = context.work / f"{folder.name}.gguf", context.work / f"{folder.name}.back"
    config = json.loads((folder / "config.json").read_text())
    kind = SHORT_NAMES[getattr(torch, config.get("dtype") or config["torch_dtype"])]
    context.tamis("convert", folder, "--outtype", kind, "-o", gguf)
    context.tamis("quantize", gguf, "--to", f"hf:{kind}", "-o", back, "--force")

    source = random.Random(7)
    tokens = [source.randrange(config["vocab_size"]) for _ in range(N_TOKENS)]
    difference = float((logits(back, tokens).float() - logits(folder, tokens).float()).abs().max())

    theirs, ours = tokenizer_of(folder), tokenizer_of(back)
    problem, n_ids, n_decoded = "", 0, 0
    samples = texts(theirs.all_special_tokens + list(theirs.get_added_vocab()))
    for text in samples:
        for special in (False, True):
            expected, got = (one(text, add_special_tokens=special)["input_ids"] for one in (theirs, ours))
            if expected != got:
                n_ids += 1
                problem = problem or f"{text[:40]!a}: {got[:8]}, source {expected[:8]}"
            elif theirs.decode(expected) != ours.decode(expected):
                n_decoded += 1
                problem = problem or f"{text[:40]!a}: {ours.decode(expected)[:40]!a}, source {theirs.decode(expected)[:40]!a}"
    table.add(difference == 0 and not n_ids and not n_decoded, folder.name, kind, "equal" if difference == 0 else f"{difference:.1e}",
              len(samples), n_ids, n_decoded, problem)


def main() -> int:
    context = start(__doc__, MODELS + [name for name in WIDER if name != "deepseek_v3_fp8"])
    table = Table(("model", "type", "logits", "texts", "ids differ", "decoded differ", "first difference"))
    for name in context.models():
        try:
            check(context, table, name)
        except Refused as refusal:
            table.add(False, name, "", "", "", "", "", refusal)
    return table.finish("folders restored from GGUF compute and read as their sources do")


if __name__ == "__main__":
    sys.exit(main())
