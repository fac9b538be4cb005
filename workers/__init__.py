"""An utterance in, a feature out: the encoders and their one loop. Knows neither CMATH nor WebRTC."""
