"""Text + voice conversations for the first checkpoint, made by grafting: no public corpus here has both.

Text is a written conversation, embedded. Voice is *another* recording: a RAVDESS clip of the same emotion,
spoken by an actor who stands in for that speaker throughout the dialogue. So the voice says nothing about the
words, and a checkpoint trained on it says so in its card. Training and validation use disjoint actors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmath_stream.checkpoint import ModalitySpec
from cmath_stream.data import (
    MELD7,
    UNLABELLED,
    DataError,
    Dialogue,
    Example,
    FeatureCache,
    Floats,
    speakers_by_appearance,
)
from realtime.errors import MediaError
from realtime.recording import Recording
from workers.voice import VoiceStatistics, trimmed, voice_statistics

TEXT = ModalitySpec("text", "all-MiniLM-L6-v2", "1", 384)
VOICE = ModalitySpec("audio", VoiceStatistics.NAME, VoiceStatistics.VERSION, VoiceStatistics.DIM)

# RAVDESS file names: the third field is the emotion. Calm counts as neutral: MELD has no calm.
_RAVDESS = {
    "01": "neutral",
    "02": "neutral",
    "03": "joy",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}


@dataclass(frozen=True, slots=True)
class Graft:
    """How voices are put onto words."""

    disagree: float = 0.15  # share of grafted voices that speak a random other emotion
    absent: float = 0.35  # share of utterances without a voice


@dataclass(frozen=True, slots=True)
class VoiceBank:
    """Voice statistics of recorded clips, by who speaks and with which emotion."""

    vectors: Floats  # [clips, D]
    label: NDArray[np.int64]  # [clips], index into MELD7
    actor: NDArray[np.int64]  # [clips]

    def of_actors(self, actors: Sequence[int]) -> "VoiceBank":
        """The clips of these actors only."""
        keep = np.isin(self.actor, actors)
        return VoiceBank(self.vectors[keep], self.label[keep], self.actor[keep])


def embed_texts(texts: Sequence[str], cache: Path) -> Floats:
    """[len(texts), 384] unit-length embeddings of single utterances by the packaged all-MiniLM-L6-v2."""

    def compute(missing: list[str]) -> Floats:
        # Imported here: seconds of start-up that a warm cache saves.
        from workers.text import DEFAULT_ENCODER, load_encoder

        encoder = load_encoder(DEFAULT_ENCODER, "cpu")
        vectors = encoder.encode(missing, batch_size=64, normalize_embeddings=True, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)

    return FeatureCache(cache, TEXT.name, TEXT.version, TEXT.dim).get(texts, compute)


def read_mono_16k(path: Path) -> Floats:
    """[T] samples at 16 kHz of an audio file. Raises MediaError where it holds no audio."""
    chunks = [chunk.pcm for chunk in Recording.open(path).audio()]
    if not chunks:
        raise MediaError(f"{path}: no readable audio")
    return np.concatenate(chunks)


def voice_bank(ravdess: Path, cache: Path, noise_db: Sequence[float] = ()) -> VoiceBank:
    """Statistics of every clip `ravdess/actor_NN/*.flac`, clean and once more for each level of noise.

    `noise_db` lies below the speech: a studio's silence is not what a call sounds like.
    Raises DataError where there is no clip.
    """
    clips = sorted(ravdess.glob("actor_*/*.flac"))
    if not clips:
        raise DataError(f"{ravdess}: no actor_*/*.flac clips")
    takes = {clip.stem: (clip, None) for clip in clips} | {
        f"{clip.stem}@{level:g}": (clip, level) for level in noise_db for clip in clips
    }

    def compute(missing: list[str]) -> Floats:
        rows = []
        for name in missing:
            clip, level = takes[name]
            speech = trimmed(read_mono_16k(clip))
            rows.append(voice_statistics(speech if level is None else _in_noise(speech, level)))
        return np.stack(rows)

    fields = [clip.stem.split("-") for clip, _ in takes.values()]
    return VoiceBank(
        vectors=FeatureCache(cache, VOICE.name, VOICE.version, VOICE.dim).get(list(takes), compute),
        label=np.array([MELD7.index(_RAVDESS[field[2]]) for field in fields], dtype=np.int64),
        actor=np.array([int(field[6]) for field in fields], dtype=np.int64),
    )


def _in_noise(speech: Floats, below_db: float) -> Floats:
    """Speech in the noise of a room, which falls towards high frequencies."""
    spectrum = np.fft.rfft(np.random.default_rng(len(speech)).standard_normal(len(speech)))
    spectrum /= np.sqrt(np.arange(len(spectrum)) + 20.0)
    noise = np.fft.irfft(spectrum, len(speech))
    noise *= speech.std() / max(noise.std(), 1e-9) * 10.0 ** (-below_db / 20.0)
    return (speech + noise).astype(np.float32)


def graft(
    dialogues: Sequence[Dialogue], embedded: Mapping[str, Floats], bank: VoiceBank, how: Graft, *, seed: int
) -> list[Example]:
    """Text + voice examples: one actor a speaker of a dialogue, one clip an utterance.

    `embedded` maps a text to its vector. Utterances without a label get no voice: there is nothing to match.
    """
    rng = np.random.default_rng(seed)
    clips = {
        (int(actor), label): np.flatnonzero((bank.actor == actor) & (bank.label == label))
        for actor in np.unique(bank.actor)
        for label in range(len(MELD7))
    }
    actors = np.unique(bank.actor)
    examples = []
    for dialogue in dialogues:
        speaker = speakers_by_appearance([line.speaker for line in dialogue.lines])
        label = np.array([line.label for line in dialogue.lines], dtype=np.int64)
        cast = rng.choice(actors, size=int(speaker.max()) + 1)  # scenes may outnumber actors
        voice = np.zeros((len(label), bank.vectors.shape[1]), dtype=np.float32)
        heard = (rng.random(len(label)) >= how.absent) & (label != UNLABELLED)
        for row in np.flatnonzero(heard):
            spoken = int(label[row])
            if rng.random() < how.disagree:
                spoken = int((spoken + rng.integers(1, len(MELD7))) % len(MELD7))
            voice[row] = bank.vectors[rng.choice(clips[int(cast[speaker[row]]), spoken])]
        examples.append(
            Example(
                features=(np.stack([embedded[line.text] for line in dialogue.lines]), voice),
                presence=np.stack([np.ones_like(heard), heard], axis=1),
                speaker=speaker,
                label=label,
            )
        )
    return examples
