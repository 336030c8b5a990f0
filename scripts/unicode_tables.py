#!/usr/bin/env python3
"""Makes src/model/unicode_tables.c: the character classes and the normal form C of the library `tokenizers`.

    scripts/unicode_tables.py NFC.tsv > src/model/unicode_tables.c && clang-format -i src/model/unicode_tables.c

The classes are found by asking the library about every code point (version 0.23.3: its expressions know Unicode 16,
its own "Punctuation" an older version). NFC.tsv holds what its normalizer does, which is that of Unicode 9, one
fact a line: "ccc FIRST-LAST CLASS", "decompose CODE CODE[ CODE]", "compose CODE CODE RESULT", with tabs between columns.
"""
import sys

from tokenizers import Regex, pre_tokenizers

CLASSES = [(name, pre_tokenizers.Split(Regex(expression), "isolated")) for name, expression in [
    ("L", r"\p{L}"), ("Lu", r"\p{Lu}"), ("Ll", r"\p{Ll}"), ("Lt", r"\p{Lt}"), ("Lm", r"\p{Lm}"), ("Lo", r"\p{Lo}"),
    ("M", r"\p{M}"), ("N", r"\p{N}"), ("P", r"\p{P}"), ("S", r"\p{S}"), ("Han", r"\p{Han}"),
    ("space", r"\s"), ("digit", r"\d"), ("word", r"\w")]]
CLASSES += [("punctuation", pre_tokenizers.Punctuation("isolated")), ("digits", pre_tokenizers.Digits(True))]


def members(step):
    """The code points that the step cuts out alone, as ranges: each stands between two that no class has."""
    ranges = []
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c != 0xE000]
    for start in range(0, len(codes), 4096):
        part = codes[start:start + 4096]
        text = "".join("\ue000" + chr(c) for c in part) + "\ue000"
        for piece, (begin, end) in step.pre_tokenize_str(text):
            if end - begin == 1 and piece != "\ue000":
                c = ord(piece)
                if ranges and ranges[-1][1] == c - 1:
                    ranges[-1][1] = c
                else:
                    ranges.append([c, c])
    return ranges


def table(kind, name, rows):
    print(f"static const {kind} {name}[] = {{")
    print(", ".join(rows))
    print("};\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("/* Made by scripts/unicode_tables.py; see unicode.h. */\n")
    print('#include "model/unicode_tables.h"\n')
    rows = []
    for name, step in CLASSES:
        ranges = members(step)
        table("struct tms_code_range", f"class_{name}", [f"{{0x{a:x}, 0x{b:x}}}" for a, b in ranges])
        rows.append(f'{{"{name}", class_{name}, {len(ranges)}}}')
    rows.append("{0}")
    print("const struct tms_code_class tms_code_classes[] = {")
    print(",\n".join(rows))
    print("};\n")

    ccc, decompose, compose = [], [], []
    for line in open(sys.argv[1], encoding="ascii").read().splitlines()[1:]:
        kind, code, value = line.split("\t")
        if kind == "ccc":
            first, last = code.split("-")
            ccc.append((int(first, 16), int(last, 16), int(value)))
        elif kind == "decompose":
            to = [int(x, 16) for x in value.split()]
            decompose.append((int(code, 16), to[0], to[1] if len(to) > 1 else 0))
        else:
            first, second = (int(x, 16) for x in code.split())
            compose.append((first, second, int(value, 16)))
    for name, rows, shape in (("tms_combining_classes", ccc, "{{0x{:x}, 0x{:x}, {}}}"),
                              ("tms_decompositions", decompose, "{{0x{:x}, 0x{:x}, 0x{:x}}}"),
                              ("tms_compositions", compose, "{{0x{:x}, 0x{:x}, 0x{:x}}}")):
        print(f"const struct tms_code_triple {name}[] = {{")
        print(", ".join(shape.format(*row) for row in sorted(rows)))
        print("};")
        print(f"const size_t {name}_n = {len(rows)};\n")


main()
