"""`train`: a recipe's kind decides what learns."""

from __future__ import annotations

from pathlib import Path

from cmath_stream.recipe import read_kind, read_recipe
from cmath_stream.tasks import cache_folder


def run(recipe: Path, data: Path, out: Path, *, resume: bool) -> Path:
    """Train by a recipe; returns what was written. Raises CmathStreamError."""
    match read_kind(recipe):  # each brings its own libraries
        case "voice":
            from workers.training.voice_folds import train_voice

            return train_voice(recipe, data, out)
        case "face":
            from workers.training.face import train_face

            return train_face(recipe, data, out, resume=resume)
        case "words":
            from cmath_stream.words import train_words

            return train_words(read_recipe(recipe), data, out, resume=resume)
        case "acted":
            from cmath_stream.acted import train_acted

            return train_acted(read_recipe(recipe), data, out, resume=resume)
        case "features":
            from cmath_stream.feature_training import train_features

            return train_features(recipe, data, out, resume=resume)
        case _:
            from cmath_stream.live import train_live

            return train_live(read_recipe(recipe), data, out, cache=cache_folder(), resume=resume)
