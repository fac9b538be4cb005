"""Small files in the shapes of the community's feature sets, whose features carry the label and noise."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from cmath_stream.training.data import Floats, synthetic

WORDS = ("bad", "fine", "good", "odd", "sad", "mad", "glad")  # word c belongs to class c


def embed(texts: list[str]) -> Floats:
    """[n, 7] one-hot of the last word, as an encoder that understands."""
    return np.eye(len(WORDS), dtype=np.float32)[[WORDS.index(text.split()[-1]) for text in texts]]


def write_npz(path: Path, dialogues: int = 30, *, seed: int = 0, **changed: Any) -> Path:
    """As data/mosi: two classes, one speaker a video, rows in no order."""
    examples = synthetic(dialogues, (5, 4, 3), 2, seed=seed, absent=0.0)
    rng = np.random.default_rng(seed)
    label = np.concatenate([example.label for example in examples])
    said = np.where(rng.random(len(label)) < 0.8, label, 1 - label)  # words that mislead now and then
    columns: dict[str, Any] = {
        "dialogue": np.array([f"v{d:03}" for d, each in enumerate(examples) for _ in each.label]),
        "utterance": np.concatenate([np.arange(1, len(each.label) + 1) for each in examples]),
        "words": np.array([f"it was {WORDS[c]}" for c in said]),
        "label": label,
        **{
            name: np.concatenate([example.features[m] for example in examples])
            for m, name in enumerate(("text", "audio", "visual"))
        },
    }
    order = rng.permutation(len(label))
    columns = {key: column[order] for key, column in columns.items()}
    columns |= {"classes": np.array(["negative", "positive"])} | changed
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: column for key, column in columns.items() if column is not None})
    return path


def community(corpus: str, texts: int, dialogues: int = 12) -> list[Any]:
    """The fields of a pickle of SDT (four text tables) or of MMGCN (one)."""
    meld = corpus == "meld"
    classes = 7 if meld else 6
    examples = synthetic(dialogues, (6, 5, 4), classes, absent=0.0)
    keys: list[Any] = list(range(dialogues)) if meld else [f"Ses0{d}F_impro0{d}" for d in range(dialogues)]
    if not meld:
        keys[2], keys[5] = "Ses02F_impro02", "Ses04F_impro07"  # two of the validation list
    people = np.eye(9)
    each = list(zip(keys, examples, strict=True))
    speakers: dict[Any, Any] = {
        key: [people[s].tolist() if meld else "FM"[s % 2] for s in example.speaker] for key, example in each
    }
    return [
        {key: [f"{key}_{n}" for n in range(len(example.label))] for key, example in each},
        speakers,
        {key: example.label.tolist() for key, example in each},
        *({key: example.features[0] + level for key, example in each} for level in range(texts)),
        {key: list(example.features[1]) for key, example in each},
        {key: example.features[2] for key, example in each},
        {key: [f"it was {WORDS[c]}" for c in example.label] for key, example in each},
        keys[:-3],
        keys[-3:] if meld else set(keys[-3:]),
        *([[]] if meld else []),
    ]


def write_community(path: Path, corpus: str, texts: int, protocol: int = 2) -> Path:
    """As `iemocap_multimodal_features.pkl` and its like."""
    path.write_bytes(pickle.dumps(community(corpus, texts), protocol))
    return path
