"""Runs llama.cpp's convert_hf_to_gguf.py, telling it the pre-tokenizer of vocabularies that it does not know.

    peer_convert.py LLAMA_CPP_SOURCE PRE [its own arguments ...]

The converter knows byte-level vocabularies by a hash of their output and refuses all others, so a vocabulary that was
trained for a test needs this one answer from outside. Everything else is the converter's own work.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    source, pre = Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(source / "gguf-py"))
    sys.path.insert(0, str(source))
    from conversion import TextModel
    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    converter = source / "convert_hf_to_gguf.py"
    sys.argv = [str(converter)] + sys.argv[3:]
    runpy.run_path(str(converter), run_name="__main__")


if __name__ == "__main__":
    main()
