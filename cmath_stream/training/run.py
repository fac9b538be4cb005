"""`train`: a recipe's kind decides what learns."""

from __future__ import annotations

from pathlib import Path

from cmath_stream.training.recipe import read_kind, read_recipe
from realtime.cache import cache_folder


def run(recipe: Path, data: Path, out: Path, *, resume: bool) -> Path:
    """Train by a recipe; returns what was written. Raises CmathStreamError."""
    match read_kind(recipe):  # each brings its own libraries
        case "voice":
            from workers.training.voice import train_voice

            return Path(train_voice(recipe, data, out, resume=resume)["weights"])
        case "face":
            from workers.training.face import train_face

            return Path(train_face(recipe, data, out, resume=resume)["weights"])
        case "words":
            from cmath_stream.training.words import train_words

            return train_words(read_recipe(recipe), data, out, resume=resume)
        case "acted":
            from cmath_stream.training.acted import train_acted

            return train_acted(read_recipe(recipe), data, out, resume=resume)
        case "features":
            from cmath_stream.training.embedding import PlainAndTuned
            from cmath_stream.training.feature_recipe import read_feature_recipe
            from cmath_stream.training.feature_training import WordEncoder, train_features

            features = read_feature_recipe(recipe)
            words = PlainAndTuned(cache_folder()) if features.text == "words" else None
            encoder = None if words is None else WordEncoder(words.spec, words)
            return train_features(features, data, out, encoder, resume=resume)
        case _:
            from cmath_stream.training.live import train_live

            return train_live(read_recipe(recipe), data, out, cache=cache_folder(), resume=resume)
