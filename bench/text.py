"""What onnxruntime saves the text worker against torch, on one thread of this machine.

    python -m bench.text [--rounds 20]

Prints one JSON line: the time of torch over that of onnx for batches of 1, 8 and 32 utterances, the cosines
of int8 to fp32, and the seconds from nothing to the first vector of each path in a process of its own. The
paths take turns within a round, so that what else the machine does weighs on all alike: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np

from workers.text import TextConfig, open_embedder
from workers.text_encoder import Embedder
from workers.text_export import PROBES

BATCHES = (1, 8, 32)
PATHS: Mapping[str, TextConfig] = {
    "torch": TextConfig(device="cpu", threads=1, runtime="torch"),
    "onnx-fp32": TextConfig(device="cpu", threads=1, runtime="onnx"),
    "onnx-int8": TextConfig(device="cpu", threads=1, runtime="onnx", precision="int8"),
}
SAID = [text for text in PROBES if 0 < len(text) <= 100]  # as long as what people say


def milliseconds(embedders: Mapping[str, Embedder], batch: int, rounds: int) -> dict[str, float]:
    """Median of an utterance's share of a batch."""
    taken: dict[str, list[float]] = {name: [] for name in embedders}
    texts = cycle(SAID)
    for _ in range(rounds):
        chosen = list(islice(texts, batch))
        for name, embed in embedders.items():
            began_s = time.perf_counter()
            embed(chosen)
            taken[name].append((time.perf_counter() - began_s) * 1000 / batch)
    return {name: median(found) for name, found in taken.items()}


def start_s(config: TextConfig) -> float:
    """Seconds of a new process from its first import to its first vector."""
    code = (
        "import time; began_s = time.perf_counter()\n"
        "from workers.text import TextConfig, open_embedder\n"
        f"open_embedder({config!r})(['Well, that went better than expected.'])\n"
        "print(time.perf_counter() - began_s)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def measure(rounds: int) -> dict[str, Any]:
    """The JSON object."""
    embedders = {name: open_embedder(config) for name, config in PATHS.items()}
    for embed in embedders.values():
        embed(SAID)
    times = {batch: milliseconds(embedders, batch, rounds) for batch in BATCHES}
    cosines = (embedders["onnx-int8"](PROBES) * embedders["onnx-fp32"](PROBES)).sum(axis=1)
    return {
        "torch_over": {
            name: {str(batch): round(found["torch"] / found[name], 2) for batch, found in times.items()}
            for name in PATHS
            if name != "torch"
        },
        "ms_an_utterance": {
            name: {str(batch): round(found[name], 2) for batch, found in times.items()} for name in PATHS
        },
        "largest_difference_to_torch": float(
            np.abs(embedders["onnx-fp32"](PROBES) - embedders["torch"](PROBES)).max()
        ),
        "int8_cosine": {"min": round(float(cosines.min()), 4), "mean": round(float(cosines.mean()), 4)},
        "start_s": {name: round(start_s(config), 2) for name, config in PATHS.items()},
        "rounds": rounds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    print(json.dumps(measure(parser.parse_args().rounds)))
