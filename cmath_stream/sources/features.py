"""A conversation whose features others have computed, as the fusion would get it from live extractors.

The notices are those of a written dialogue; in the place of every utterance's media come its features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cmath_stream.checkpoint import Checkpoint
from cmath_stream.sources import written
from cmath_stream.sources.dialogues import Spoken, Written
from cmath_stream.training.feature_files import RawSet
from cmath_stream.training.feature_sets import Conversation, FeatureSet
from cmath_stream.training.feature_training import WordEncoder, as_trained, fitting, wants_words
from realtime.cache import cache_folder
from realtime.conversation import ConversationConfig
from realtime.messages import MODALITIES, Answer, Features, FeaturesMissing, Message, Segment
from realtime.plain_words import plain


def prepared(checkpoint: Checkpoint, path: Path, raw: RawSet) -> FeatureSet:
    """The features of a file that a checkpoint takes, in its order; its words embedded where it learned so.

    Raises DataError where file and checkpoint do not belong together.
    """
    words = None
    if wants_words(checkpoint):
        from cmath_stream.training.embedding import PlainAndTuned  # brings the sentence encoder

        encoder = PlainAndTuned(cache_folder())
        words = WordEncoder(encoder.spec, encoder)
    return fitting(checkpoint, as_trained(checkpoint, path, raw, words))


def messages(
    session_id: str, conversation: Conversation, checkpoint: Checkpoint, config: ConversationConfig
) -> Iterator[Message]:
    """The session from start to close. The files know no times: utterances follow each other."""
    example = conversation.example
    said = conversation.words or ("",) * len(example.label)
    lines = (
        Spoken(f"speaker-{speaker + 1}", plain(words), place)
        for place, (speaker, words) in enumerate(zip(example.speaker.tolist(), said, strict=True))
    )
    dialogue = Written(plain(conversation.name), tuple(lines))
    place = 0
    for message in written.messages(session_id, dialogue, config, None):
        if isinstance(message, Segment):
            yield from _answers(message, conversation, place, checkpoint)
            place += 1
        else:
            yield message


def _answers(
    segment: Segment, conversation: Conversation, place: int, checkpoint: Checkpoint
) -> Iterator[Answer]:
    """What the extractors of all modalities would say of an utterance; every modality has its answer."""
    example, specs = conversation.example, checkpoint.meta.modalities
    rows = {spec.modality: column for column, spec in enumerate(specs)}
    words = segment.text or None
    for modality in MODALITIES:
        ids = segment.session_id, segment.utterance_id, modality
        column = rows.get(modality)
        if column is None:
            continue
        spoken = words if modality == "text" else None
        if example.presence[place, column]:
            spec = specs[column]
            vector = example.features[column][place]
            yield Features(*ids, f"{spec.name}/{spec.version}", vector, 1.0, 0, spoken)
        else:
            yield FeaturesMissing(*ids, "not_in_file", 0, spoken)
