"""Speech probability per 32 ms frame: Silero VAD in its streaming form, on onnxruntime.

Knows the network and its state; knows nothing of utterances. The weights come with faster-whisper
(assets/silero_vad_v6.onnx, MIT): inputs `input` [n, 576] (64 samples of context before 512 new ones) and
the recurrent state `h`, `c` [1, n, 128].
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.errors import ModelUnavailable
from realtime.messages import Pcm

FRAME_SAMPLES = 512  # 32 ms at 16 kHz, fixed by the network
_CONTEXT_SAMPLES = 64


class VadModel:
    """The network, loaded once a process and shared: it keeps no state of its own."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # 0.1 ms of work: threads only cost
        self._session: Any = onnxruntime.InferenceSession(
            str(_weights()), options, providers=["CPUExecutionProvider"]
        )

    def run(
        self, frame: Pcm, h: NDArray[np.float32], c: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
        """One step: `frame` [576] and the state before it → probability and the state after it."""
        p, h, c = self._session.run(None, {"input": frame[None], "h": h, "c": c})
        return float(p.reshape(-1)[0]), h, c


class VoiceActivity:
    """Streaming state of one participant: feed samples, get a probability for each whole frame."""

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Forget the past (after a hole in the audio the recurrent state no longer fits)."""
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)

    def push(self, frame: Pcm) -> float:
        """P(speech) of the next 512 samples."""
        if len(frame) != FRAME_SAMPLES:
            raise ValueError(f"a frame holds {FRAME_SAMPLES} samples, got {len(frame)}")
        p, self._h, self._c = self._model.run(np.concatenate([self._context, frame]), self._h, self._c)
        self._context = frame[-_CONTEXT_SAMPLES:]
        return p


def _weights() -> Path:
    package = find_spec("faster_whisper")  # found, not imported: the import would load CTranslate2
    if package is None or package.origin is None:
        raise ModelUnavailable(
            "Silero VAD comes with faster-whisper, which is not installed: pip install faster-whisper"
        )
    path = Path(package.origin).parent / "assets" / "silero_vad_v6.onnx"
    if not path.exists():
        raise ModelUnavailable(f"no Silero VAD at {path}: install faster-whisper >=1.2,<2")
    return path
