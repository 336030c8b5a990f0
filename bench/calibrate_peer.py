"""GPTQ of a folder with GPTQModel on the CPU: what calibrate_speed.py times. Run with a Python that has GPTQModel.

    calibrate_peer.py MODEL IDS.json OUT BITS GROUP THREADS     IDS.json: [[id, …], …], a sequence each

Writes the folder OUT, and prints on its last line {"seconds": …, "version": …}: from opening the model to the written folder,
without the imports, which take longer than a small model's quantization.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

model, ids, out = (str(Path(part).resolve()) for part in sys.argv[1:4])
bits, group, threads = sys.argv[4:]
os.chdir(Path(out).parent)  # it leaves a folder logs where it runs
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["GPTQMODEL_CPU_WORKERS"] = threads
os.environ["OMP_NUM_THREADS"] = threads

import torch  # noqa: E402

torch.set_num_threads(int(threads))

import gptqmodel  # noqa: E402
from gptqmodel import GPTQModel, QuantizeConfig  # noqa: E402

start = time.perf_counter()
sequences = [{"input_ids": s, "attention_mask": [1] * len(s)} for s in json.loads(Path(ids).read_text())]
config = QuantizeConfig(bits=int(bits), group_size=int(group), sym=True, desc_act=False, device="cpu")
quantized = GPTQModel.load(model, config)
quantized.quantize(sequences, batch_size=1)
quantized.save(out)
print()
print(json.dumps({"seconds": time.perf_counter() - start, "version": gptqmodel.__version__}), flush=True)
