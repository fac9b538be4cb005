"""Importing is free: no model library, no environment, no socket, and `realtime` is ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "faster_whisper",
    "ctranslate2",
    "cv2",
    "onnx",
    "onnxruntime",
    "tokenizers",
)
# What is made of torch itself. The extractors import a network only when they load it, the training never.
NETWORKS = ("workers.prosody", "workers.voice_encoder", "workers.face_encoder", "workers.speech_model")
APART = (*NETWORKS, "workers.voice_file", "workers.training")

PROBE = """
import os, socket, sys
package, heavy, apart = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
import importlib, pkgutil

class Watched(dict):
    def __getitem__(self, key):
        raise AssertionError(f"environment read at import: {key}")
    get = __contains__ = __getitem__

def refuse(*args, **options):
    raise AssertionError("socket opened at import")

third_parties = [
    "numpy", "av", "aiortc", "aiohttp", "aiohttp.web", "jwt", "redis.asyncio", "prometheus_client",
]
for name in third_parties:  # what they do while importing is theirs
    importlib.import_module(name)
own = importlib.import_module(package)
os.environ._data = Watched()
socket.socket = refuse
for found in pkgutil.walk_packages(own.__path__, package + "."):
    if not any(found.name == name or found.name.startswith(name + ".") for name in apart):
        importlib.import_module(found.name)
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, f"loaded by importing {package}: {loaded}"
print(own.__file__)
"""


def probe(package: str, heavy: tuple[str, ...]) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", PROBE, package, ",".join(heavy), ",".join(APART)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout.strip()


@pytest.mark.parametrize("package", ["realtime", "workers"])
def test_importing_loads_no_model_reads_no_environment_opens_no_socket(package: str) -> None:
    """For `realtime` it also proves the name: a foreign package of the same name exists."""
    assert Path(probe(package, HEAVY)) == ROOT / package / "__init__.py"


@pytest.mark.parametrize("module", NETWORKS)
def test_what_is_excepted_is_made_of_torch(module: str) -> None:
    """An exception that is no longer needed is taken back."""
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
    assert "\nimport torch\n" in source
