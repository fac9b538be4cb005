"""What a fusion leaves behind of each utterance, so that another process can go on with it. Sans-I/O.

A trace holds the utterance's row of the window and the running values of its speaker as they were with it;
the last traces of a session together are all that the fusion knows of it. They hold no words and no media.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from realtime.errors import WireError
from realtime.messages import SessionStarted, Vector


@dataclass(frozen=True, slots=True)
class Average:
    """A participant's running emotion (see `participant.RunningEmotion`)."""

    utterances: int
    at_ms: int
    leading: int
    weight: float
    sums: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Mean:
    """A person's running mean of one modality (see `running.RunningMean`)."""

    count: int
    total: Vector  # [D]


@dataclass(frozen=True, slots=True)
class Trace:
    """One answer to one utterance; without ids, only that the session or an utterance has begun."""

    utterance_id: str
    participant_id: str
    revision: int
    is_end: bool
    vectors: Mapping[str, Vector]  # modality → [D_m], as the model takes them
    means: Mapping[str, Mean]  # of the speaker by modality, the utterance included
    average: Average | None  # of the speaker; None: nothing final yet
    speakers: Mapping[str, int]  # participant → number in the window
    open: Mapping[str, str]  # utterance → participant, of those that have begun and not ended
    begun: int  # utterances of the session so far
    emotions: int  # utterances of the session that ended so, this one included
    dropped: int
    started: SessionStarted | None


def encode(trace: Trace) -> tuple[bytes, bytes]:
    """JSON of what is small, and the numbers as float32 LE in the order in which it names them."""
    head = {
        "id": trace.utterance_id,
        "who": trace.participant_id,
        "revision": trace.revision,
        "is_end": trace.is_end,
        "vectors": [(name, vector.size) for name, vector in trace.vectors.items()],
        "means": [(name, mean.count, mean.total.size) for name, mean in trace.means.items()],
        "average": asdict(trace.average) if trace.average else None,
        "speakers": dict(trace.speakers),
        "open": dict(trace.open),
        "begun": trace.begun,
        "emotions": trace.emotions,
        "dropped": trace.dropped,
        "started": asdict(trace.started) if trace.started else None,
    }
    numbers = [*trace.vectors.values(), *(mean.total for mean in trace.means.values())]
    blob = np.concatenate(numbers) if numbers else np.zeros(0)
    return json.dumps(head, separators=(",", ":")).encode(), blob.astype("<f4").tobytes()


def decode(head: bytes, blob: bytes) -> Trace:
    """What `encode` made. Raises WireError for anything else."""
    try:
        return _trace(json.loads(head), blob)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WireError(f"not a trace: {type(error).__name__}") from error


def _trace(said: Any, blob: bytes) -> Trace:
    numbers = np.frombuffer(blob, "<f4").astype(np.float32)
    sizes = [size for _, size in said["vectors"]] + [size for _, _, size in said["means"]]
    if sum(sizes) != numbers.size:
        raise ValueError("a trace's numbers are not as many as it says")
    parts = iter(np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else [])
    vectors = {name: next(parts) for name, _ in said["vectors"]}
    means = {name: Mean(count, next(parts)) for name, count, _ in said["means"]}
    average = said["average"]
    return Trace(
        utterance_id=said["id"],
        participant_id=said["who"],
        revision=said["revision"],
        is_end=said["is_end"],
        vectors=vectors,
        means=means,
        average=Average(**(average | {"sums": tuple(average["sums"])})) if average else None,
        speakers=said["speakers"],
        open=said["open"],
        begun=said["begun"],
        emotions=said["emotions"],
        dropped=said["dropped"],
        started=SessionStarted(**said["started"]) if said["started"] else None,
    )
