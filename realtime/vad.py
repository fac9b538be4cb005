"""Speech probability per 32 ms frame: Silero VAD in its streaming form, on onnxruntime.

Knows the network and its state; knows nothing of utterances. The weights come with faster-whisper
(assets/silero_vad_v6.onnx, MIT): each frame is 576 samples, 64 of context before 512 new ones; the recurrent
state `h`, `c` is [1, n, 128]. Letters: T frames in sequence, N participants.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.errors import ModelUnavailable
from realtime.messages import Pcm

FRAME_SAMPLES = 512  # 32 ms at 16 kHz, fixed by the network
_CONTEXT_SAMPLES = 64
_STATE = 128

Floats = NDArray[np.float32]


class VadModel:
    """The network, loaded once a process and shared: it keeps no state of its own."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # 0.1 ms of work: threads only cost
        self._session: Any = onnxruntime.InferenceSession(
            _for_many(_weights()), options, providers=["CPUExecutionProvider"]
        )

    def run(self, frames: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        """T steps of N participants: `frames` [T, N, 576], state before them → probabilities [T, N], state.

        Several at once cost a third of one by one: most of a single step is the call.
        """
        steps, participants, samples = frames.shape
        shape = np.array([steps, participants, _STATE], np.int64)
        inputs = {"input": frames.reshape(-1, samples), "h": h, "c": c, "shape": shape}
        p, h, c = self._session.run(None, inputs)
        return p.reshape(steps, participants), h, c


class VoiceActivity:
    """What the network remembers of one participant."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the past (after a hole in the audio the recurrent state no longer fits)."""
        self.h = np.zeros((1, 1, _STATE), np.float32)
        self.c = np.zeros((1, 1, _STATE), np.float32)
        self.context = np.zeros(_CONTEXT_SAMPLES, np.float32)


def judge(model: VadModel, heard: Sequence[tuple[VoiceActivity, Pcm]]) -> list[Floats]:
    """P(speech) of the next frames of each participant: audio of whole frames, T·512 samples → [T].

    Participants with the same number of frames share a run of the network.
    """
    result: list[Floats] = [np.zeros(0, np.float32)] * len(heard)
    places: dict[int, list[int]] = {}
    for place, (_, pcm) in enumerate(heard):
        steps, rest = divmod(len(pcm), FRAME_SAMPLES)
        if rest:
            raise ValueError(f"a frame holds {FRAME_SAMPLES} samples, got {rest} more than whole ones")
        if steps:
            places.setdefault(steps, []).append(place)
    for group in places.values():
        activities = [heard[place][0] for place in group]
        frames = np.stack([_with_context(*heard[place]) for place in group], axis=1)
        h, c = (np.concatenate([getattr(each, key) for each in activities], axis=1) for key in "hc")
        p, h, c = model.run(frames, h, c)
        for n, (place, activity) in enumerate(zip(group, activities, strict=True)):
            activity.h, activity.c = h[:, n : n + 1], c[:, n : n + 1]
            activity.context = heard[place][1][-_CONTEXT_SAMPLES:]
            result[place] = p[:, n]
    return result


def _with_context(activity: VoiceActivity, pcm: Pcm) -> Floats:
    """[T, 576]: each frame with the end of the one before it."""
    whole = np.concatenate([activity.context, pcm])
    windows = np.lib.stride_tricks.sliding_window_view(whole, _CONTEXT_SAMPLES + FRAME_SAMPLES)
    return windows[::FRAME_SAMPLES]


def _for_many(path: Path) -> bytes:
    """The published graph, which takes one participant's frames in sequence, made to take several's.

    Only the two transpositions around its LSTM decide which axis is time: the first becomes a reshaping to
    [T, N, 128], given as a new input; the second flattens the two again.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(path))
    graph = model.graph
    before, after = (node for node in graph.node if node.op_type == "Transpose")
    graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [3]))
    before.CopyFrom(helper.make_node("Reshape", [before.input[0], "shape"], [before.output[0]]))
    flat = helper.make_tensor("flat", TensorProto.INT64, [3], [1, _STATE, -1])
    graph.initializer.append(flat)
    graph.node.insert(
        list(graph.node).index(after) + 1,
        helper.make_node("Reshape", ["states first", "flat"], [after.output[0]]),
    )
    after.CopyFrom(helper.make_node("Transpose", [after.input[0]], ["states first"], perm=[2, 0, 1]))
    for value in (*graph.input, *graph.output):
        if value.name in ("h", "c", "hn", "cn"):
            value.type.tensor_type.shape.dim[1].dim_param = "participants"
    del graph.value_info[:]  # shapes of the graph as it was
    return bytes(model.SerializeToString())


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
