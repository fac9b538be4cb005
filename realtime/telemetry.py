"""Every instrument, named once, with its unit and buckets. No label ever names a session or a person.

All of them live on `REGISTRY`, not on prometheus_client's global one: a program that embeds us keeps its
own registry to itself.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

REGISTRY: Final = CollectorRegistry()
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_NAMESPACE = "cmath_stream"
_LATENCY_S = (
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.8,
    1.0,
    1.2,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
)  # marks: 0.6 and 1.2
_STAGE_S = (0.001, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0)
_CONNECT_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)  # mark: 1 s
_LAG_S = tuple(round(0.0005 * 2 ** (n / 2), 6) for n in range(24))  # 0.5 ms to 1.4 s; mark: 8 ms
_WAIT_S = (0.001, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.18, 0.25)  # mark: 0.12
_BATCH = (1, 2, 4, 8, 16, 32, 64)


def _counter(name: str, what: str, *labels: str) -> Counter:
    return Counter(name, what, labels, namespace=_NAMESPACE, registry=REGISTRY)


def _histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, what, labels, namespace=_NAMESPACE, buckets=buckets, registry=REGISTRY)


SESSIONS_ACTIVE: Final = Gauge(
    "sessions_active", "Conversations open now.", namespace=_NAMESPACE, registry=REGISTRY
)
SESSIONS_TOTAL: Final = _counter("sessions_total", "Conversations closed.", "outcome")
SESSIONS_REJECTED_TOTAL: Final = _counter("sessions_rejected_total", "WHIP offers refused.", "reason")
SESSION_CONNECT_SECONDS: Final = _histogram(
    "session_connect_seconds", "From the WHIP offer to a connected peer.", _CONNECT_S
)
FRAMES_RECEIVED_TOTAL: Final = _counter(
    "frames_received_total", "Decoded media frames read from the tracks of all peers.", "kind"
)
AUDIO_MISSING_SECONDS_TOTAL: Final = _counter(
    "audio_missing_seconds_total", "Holes in audio: lost packets, or a sender that left out silence."
)
RTP_PACKETS_LOST_TOTAL: Final = _counter(
    "rtp_packets_lost_total", "Packets that never came, or too late to be used.", "kind"
)
JITTER_BUFFER_DELAY_SECONDS: Final = _histogram(
    "jitter_buffer_delay_seconds", "What an audio packet waited for others before it.", _WAIT_S
)
AV_SKEW_SECONDS: Final = _histogram(
    "av_skew_seconds", "By how much arrival would have put a picture beside its sound.", _WAIT_S
)
PICTURES_KEPT_TOTAL: Final = _counter("pictures_kept_total", "Video frames kept as pictures.")
EVENT_LOOP_LAG_SECONDS: Final = _histogram(
    "event_loop_lag_seconds", "How late the event loop of the ingest gives a task its turn.", _LAG_S
)
FRAMES_DROPPED_TOTAL: Final = _counter(
    "frames_dropped_total", "Media thrown away before a segment.", "kind", "reason"
)
CAPTIONS_TOTAL: Final = _counter("captions_total", "Caption messages received.", "outcome")
UTTERANCES_TOTAL: Final = _counter("utterances_total", "Utterances ended.", "outcome")
EARLY_STARTED_TOTAL: Final = _counter(
    "early_started_total", "Segments sent before the end of their utterance was decided."
)
EARLY_DISCARDED_TOTAL: Final = _counter(
    "early_discarded_total", "Early starts that were in vain: resumed or changed.", "reason"
)
QUEUE_LAG: Final = Gauge(
    "queue_lag", "Jobs that no worker of a stage has read yet.", ("stage",),
    namespace=_NAMESPACE, registry=REGISTRY,
)  # fmt: skip
ENDPOINT_DELAY_SECONDS: Final = _histogram(
    "endpoint_delay_seconds", "From the end of speech to the decision that it had ended.", _LATENCY_S
)
UTTERANCE_TO_EMOTION_SECONDS: Final = _histogram(
    "utterance_to_emotion_seconds", "From the real end of speech to the published emotion.", _LATENCY_S
)
STAGE_SECONDS: Final = _histogram("stage_seconds", "Time an utterance spent in one stage.", _STAGE_S, "stage")
BATCH_SIZE: Final = _histogram("batch_size", "Utterances in one call of a model.", _BATCH, "stage")
REDELIVERED_TOTAL: Final = _counter("redelivered_total", "Jobs taken over from a dead consumer.", "stage")
DLQ_TOTAL: Final = _counter("dlq_total", "Jobs given up and put among the dead letters.", "stage")
MODALITY_MISSING_TOTAL: Final = _counter(
    "modality_missing_total", "Utterances without one modality.", "modality", "reason"
)
ENGINE_INFO: Final = Info(
    "engine", "Engine that runs the fusion model.", namespace=_NAMESPACE, registry=REGISTRY
)  # exported as cmath_stream_engine_info; fill with .info({"engine": …, "precision": …, "device": …})
ENGINE_FALLBACK_TOTAL: Final = _counter(
    "engine_fallback_total", "Times the fusion model had to run eagerly.", "reason"
)


def render() -> bytes:
    """All instruments in Prometheus text format."""
    return generate_latest(REGISTRY)
