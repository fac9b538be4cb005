"""Media in, messages out: time, frames, utterances and the wire. Knows neither features nor the model."""
