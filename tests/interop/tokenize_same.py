"""tamis tokenize gives the ids and the texts of the library tokenizers, and for SentencePiece models those of that library.

One million random characters, a quarter each: any code points; letters, digits, punctuation and spaces of ASCII with the
contractions and special tokens that expressions look for; marks, Hangul and CJK; words of the model's own texts. They
are read with the tokenizers that --models names, and with pebble's vocabulary behind each kind of normalizer,
pre-tokenizer and post-processor that published files have; also with vocabularies of SentencePiece's kinds, trained here.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from common import REPOSITORY, Context, Refused, Table, start

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|"
KIMI_UPPER, KIMI_LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def byte_level(use_regex: bool = False, prefix: bool = False) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def digits(each: bool) -> dict:
    return {"type": "Digits", "individual_digits": each}


# name: (normalizer, steps of the pre-tokenizer)
STEPS = {
    "gpt-2": (None, [byte_level(True)]),
    "roberta": (None, [byte_level(True, True)]),
    "mpt": ({"type": "NFC"}, [byte_level(True)]),
    "llama-3": (None, [split(CONTRACTIONS + "|" + WORDS + r"|\p{N}{1,3}" + TAIL), byte_level()]),
    "qwen3.5": ({"type": "NFC"}, [split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level()]),
    "gpt-4o": (None, [split(CASED + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level()]),
    "tiktoken": (None, [split(CASED + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+", "Removed", True), byte_level()]),
    "kimi": (None, [split(r"[\p{Han}]+|" + rf"[^\r\n\p{{L}}\p{{N}}]?{KIMI_UPPER}*{KIMI_LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{KIMI_UPPER}+{KIMI_LOWER}*{CONTRACTIONS}?|"
                          + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte_level()]),
    "deepseek-llm": (None, [split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
                            split("[一-龥ࠀ-一가-퟿]+"), digits(True), byte_level()]),
    "deepseek-coder": (None, [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), digits(True), byte_level()]),
    "starcoder": (None, [digits(True), byte_level(True)]),
    "falcon": (None, [{"type": "Punctuation", "behavior": "Contiguous"}, byte_level(True), digits(False), split("[0-9][0-9][0-9]")]),
    "command-r": ({"type": "NFC"}, [digits(True), byte_level(True)]),
    "bloom": (None, [split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), byte_level()]),
    "exaone": (None, [split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"), byte_level()]),
    "bailing": (None, [split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"), byte_level()]),
    "jais-2": (None, [split(CONTRACTIONS + "|" + WORDS + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"), byte_level()]),
    "tiny-aya": (None, [split(r"\d{1,3}(?=(?:\d{3})*\b)"), byte_level(True)]),
    "superbpe": (None, [split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), byte_level()]),
    "chameleon": (None, [split("<sentinel:[0-9]+>"), split(r"([\t\n]|    |  )"), digits(True), {"type": "Punctuation", "behavior": "Isolated"}, byte_level(True)]),
    "whitespace": (None, [{"type": "Whitespace"}, byte_level()]),
    "bert": (None, [{"type": "BertPreTokenizer"}, byte_level()]),
    "delimiter": (None, [{"type": "CharDelimiterSplit", "delimiter": "."}, {"type": "WhitespaceSplit"}, byte_level()]),
    "decomposed": ({"type": "NFD"}, [byte_level(True)]),
    "replaced": ({"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "Prepend", "prepend": "é"},
                  {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}, {"type": "Replace", "pattern": {"Regex": r"\s+|\p{M}"}, "content": "_"}]}, [byte_level(True)]),
    "text pattern": (None, [{"type": "Split", "pattern": {"String": "e."}, "behavior": "MergedWithNext", "invert": False}, byte_level()]),
    **{f"{behavior}{' inverted' if invert else ''}": (None, [split(r"\s|[a-c]+", behavior, invert), byte_level()])
       for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous") for invert in (False, True)},
}

PIECES = ["'s", "'T", "'ſ", "'LL", "'re", "  ", "   ", "\n", "\r\n", "\t", "\r", "\u0085", "\u00a0", "\u2028", "▁", "▁▁", "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_end|>", "<0x41>",
          "123", "1234567", "３", "²", "ſ", "ﬁ", "ß", "İ", "K", "é", "e\u0301", "😀", "👩‍🔬", "。", "…", "_", "^", "`", "$", "\\", "/", "//", "#", "(", ")", "\x00", "\x7f", "\ufeff", "\u200b"]


def texts(seed: int, total: int) -> list[str]:
    """Random texts of 1 to 400 characters, `total` together."""
    rng = random.Random(seed)
    words = (REPOSITORY / "models/pebble/eval.txt").read_text(encoding="utf-8").split()
    marks = [c for a, b in ((0x300, 0x370), (0x591, 0x5c8), (0x93c, 0x94e), (0xac00, 0xad00), (0x1100, 0x1200), (0x4e00, 0x4e40), (0x3040, 0x3100),
                            (0xc0, 0x250), (0x1e00, 0x1f00), (0x1ab0, 0x1b00), (0x11930, 0x11940), (0xf900, 0xfa00), (0x2f800, 0x2f820)) for c in range(a, b)]
    result, n = [], 0
    while n < total:
        kind, length, text = rng.randrange(4), rng.randint(1, 400), []
        for _ in range(length):
            if kind == 0:
                code = rng.randrange(0x110000) if rng.random() < 0.5 else rng.randrange(0x3000)
                text.append(chr(code) if not 0xd800 <= code < 0xe000 else " ")
            elif kind == 1:
                text.append(rng.choice(PIECES) if rng.random() < 0.2 else chr(rng.randrange(0x20, 0x7f)) if rng.random() < 0.7 else " ")
            elif kind == 2:
                text.append(chr(rng.choice(marks)) if rng.random() < 0.8 else rng.choice(" aeo1."))
            else:
                text.append(rng.choice(words) + rng.choice([" ", " ", " ", "  ", "\n", ""]))
        result.append("".join(text)[:length])
        n += length
    return result


def ask(context: Context, model: Path, questions: list[dict], *options: str) -> list[dict]:
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run([str(context.options.tamis), "tokenize", str(model), "--jsonl", *options], input=lines.encode(), capture_output=True)
    if done.returncode != 0:
        raise Refused(done.stderr.decode(errors="replace").strip())
    return [json.loads(line) for line in done.stdout.splitlines()]


def made(context: Context, name: str, change) -> Path:
    """pebble's tokenizer with some other parts."""
    from tokenizers import Tokenizer
    tokenizer = json.loads((REPOSITORY / "models/pebble/tokenizer.json").read_text(encoding="utf-8"))
    change(tokenizer)
    folder = context.work / ("made-" + name.replace(" ", "-"))
    folder.mkdir(exist_ok=True)
    Tokenizer.from_str(json.dumps(tokenizer)).save(str(folder / "tokenizer.json"))  # with the ids that the library gives
    return folder


def set_steps(tokenizer: dict, normalizer: dict | None, steps: list[dict]) -> None:
    tokenizer["normalizer"] = normalizer
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}


def set_added(tokenizer: dict) -> None:
    """Added tokens of all kinds, a template around texts, whole words first."""
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    for i, (text, flags) in enumerate([("<s>", {"special": True}), ("ab", {"single_word": True}), ("the", {"normalized": True}), ("</s>", {"lstrip": True, "special": True}),
                                       (" x", {}), ("1", {"rstrip": True}), ("é", {"normalized": True, "rstrip": True}), ("aba", {}), ("  ", {}), ("    ", {})]):
        tokenizer["added_tokens"].append({"id": 4096 + i, "content": text, **base, **flags})
    tokenizer["model"]["ignore_merges"] = True
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [byte_level(), {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [4096], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [4099], "tokens": ["</s>"]}}}]}


def trained(context: Context, size: int = 2000) -> dict[str, Path]:
    """Small vocabularies with blocks for spaces: BPE with byte fallback, spelled as older and as newer files have it; unigram."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    corpus = (REPOSITORY / "models/pebble/calib.txt").read_text(encoding="utf-8").splitlines()
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    fallback = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    folders = {}

    def save(name: str, tokenizer) -> None:
        folders[name] = context.work / f"trained-{name}"
        folders[name].mkdir(exist_ok=True)
        tokenizer.save(str(folders[name] / "tokenizer.json"))

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False))
    plain = json.loads(bpe.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if not token["content"].startswith("<0x")]
    plain["model"]["byte_fallback"] = True
    bpe = Tokenizer.from_str(json.dumps(plain))
    bpe.decoder = fallback
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=cut)
            save(f"bpe-{scheme}{'-cut' if cut else ''}", bpe)
    bpe.decoder = decoders.Metaspace()
    save("bpe-metaspace", bpe)
    bpe.pre_tokenizer = None
    bpe.decoder = fallback
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.add_tokens([AddedToken("▁▁▁", normalized=True), AddedToken("the", normalized=False)])
    save("bpe-legacy", bpe)

    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=size * 3 // 4, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False))
    unigram.decoder = decoders.Metaspace()
    save("unigram", unigram)
    unigram.pre_tokenizer = None
    unigram.normalizer = normalizers.Replace(" ", "▁")
    save("unigram-uncut", unigram)
    return folders


def check(context: Context, table: Table, name: str, folder: Path, batch: list[str]) -> None:
    from tokenizers import Tokenizer
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    n_ids, problem = 0, ""
    try:
        for special in (False, True):
            want = [one.ids for one in theirs.encode_batch(batch, add_special_tokens=special)]
            got = [one["ids"] for one in ask(context, folder, [{"text": text} for text in batch], *(["--special"] if special else []))]
            n_ids += sum(map(len, want))
            wrong = [i for i in range(len(batch)) if want[i] != got[i]]
            if wrong and not problem:
                text, a, b = batch[wrong[0]], want[wrong[0]], got[wrong[0]]
                at = next((k for k, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
                problem = f"{len(wrong)} texts; {ascii(text)[:60]}: id {at} is {b[at:at + 3]}, theirs {a[at:at + 3]}"
        decoded = [theirs.decode(ids, skip_special_tokens=False) for ids in want]
        back = [one["text"] for one in ask(context, folder, [{"ids": ids} for ids in want])]
        wrong = [i for i in range(len(batch)) if decoded[i] != back[i]]
        if wrong and not problem:
            problem = f"{len(wrong)} decoded; {ascii(back[wrong[0]])[:60]}, theirs {ascii(decoded[wrong[0]])[:60]}"
    except Refused as refusal:
        problem = str(refusal)
    table.add(not problem, name, len(batch), n_ids, problem)


def check_sentencepiece(context: Context, table: Table, batch: list[str]) -> None:
    """tokenizer.model against the library sentencepiece itself, for its kinds of models and settings."""
    import sentencepiece
    calib = REPOSITORY / "models/pebble/calib.txt"
    for name, settings in {"bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True),
                           "bpe nfkc": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="nmt_nfkc"),
                           "unigram": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="nmt_nfkc"),
                           "unigram no prefix": dict(model_type="unigram", normalization_rule_name="nfkc", add_dummy_prefix=False)}.items():
        folder = context.work / ("sentencepiece-" + name.replace(" ", "-"))
        folder.mkdir(exist_ok=True)
        sentencepiece.SentencePieceTrainer.train(input=str(calib), model_prefix=str(folder / "tokenizer"), vocab_size=1200, minloglevel=3,
                                                 user_defined_symbols=["<x>", "the▁x"], **settings)
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        # Control tokens are no text for the library; tamis finds them. NUL ends its texts.
        plain = [text.replace("\0", " ").replace("<s>", "").replace("</s>", "").replace("<unk>", "").replace("<x>", "x") for text in batch]
        problem, n_ids = "", 0
        try:
            got = [one["ids"] for one in ask(context, folder, [{"text": text} for text in plain], "--no-parse-special")]
            want = [theirs.encode(text) for text in plain]
            n_ids = sum(map(len, want))
            wrong = [i for i in range(len(plain)) if want[i] != got[i]]
            if wrong:
                text, a, b = plain[wrong[0]], want[wrong[0]], got[wrong[0]]
                at = next((k for k, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
                problem = f"{len(wrong)} texts; {ascii(text)[:60]}: id {at} is {b[at:at + 3]}, theirs {a[at:at + 3]}"
        except Refused as refusal:
            problem = str(refusal)
        table.add(not problem, f"sentencepiece {name}", len(plain), n_ids, problem)


def check_unigram_gguf(context: Context, table: Table, batch: list[str]) -> None:
    """A unigram model as a GGUF file ("t5"), with its charsmap, against the library sentencepiece."""
    import gguf
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    prefix, path = context.work / "unigram-gguf", context.work / "unigram.gguf"
    sentencepiece.SentencePieceTrainer.train(input=str(REPOSITORY / "models/pebble/calib.txt"), model_prefix=str(prefix), vocab_size=1200, minloglevel=3,
                                             model_type="unigram", user_defined_symbols=["<x>"])
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(prefix.with_suffix(".model").read_bytes())
    writer = gguf.GGUFWriter(path, "t5")
    writer.add_tokenizer_model("t5")
    writer.add_token_list([piece.piece for piece in model.pieces])
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types([piece.type for piece in model.pieces])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(prefix.with_suffix(".model")))
    plain = [text.replace("\0", " ").replace("<s>", "").replace("</s>", "").replace("<unk>", "").replace("<x>", "x") for text in batch]
    problem, n_ids = "", 0
    try:
        got = [one["ids"] for one in ask(context, path, [{"text": text} for text in plain], "--no-parse-special")]
        want = [theirs.encode(text) for text in plain]
        n_ids = sum(map(len, want))
        wrong = [i for i in range(len(plain)) if want[i] != got[i]]
        if wrong:
            problem = f"{len(wrong)} texts; {ascii(plain[wrong[0]])[:60]}: {got[wrong[0]][:8]}, theirs {want[wrong[0]][:8]}"
    except Refused as refusal:
        problem = str(refusal)
    table.add(not problem, "unigram GGUF", len(plain), n_ids, problem)


def main() -> int:
    shared = REPOSITORY.parent / "shared/tokenizers"
    context = start(__doc__, ["pebble"] + [str(shared / name) for name in ("qwen3", "deepseek_v3", "llama3_1") if (shared / name).is_dir()])
    table = Table(("tokenizer", "texts", "ids", "first difference"))
    million = texts(1, 1_000_000)
    for model in context.models():
        check(context, table, Path(model).name, context.model(model), million)
    some = texts(2, 100_000)
    for name, (normalizer, steps) in STEPS.items():
        check(context, table, name, made(context, name, lambda tokenizer: set_steps(tokenizer, normalizer, steps)), some)
    check(context, table, "added tokens", made(context, "added", set_added), some)
    for name, folder in trained(context).items():
        check(context, table, name, folder, some)
    check_sentencepiece(context, table, some)
    check_unigram_gguf(context, table, some)
    return table.finish("tamis reads texts as the libraries tokenizers and sentencepiece do")


if __name__ == "__main__":
    sys.exit(main())
