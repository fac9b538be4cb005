"""Our own voice encoder: how an utterance was said, learned, and beside it measured.

Waveform -> log-mel, normalised by the utterance itself -> residual 2-D convolutions -> attention pooling over
time -> an embedding and a posterior over the eight acted emotions of RAVDESS. All of it is one graph, so a
batch runs where its tensors are. What is measured (`workers.prosody`) has a say in the features a fusion is
given. Knows tensors; not files, segments, speakers or training.

Letters: B utterances, S samples, T frames of 16 ms, M mel bands, C channels, F bands left, D embedding.
Every convolution sees zeros after an utterance's end, so padding and neighbours change nothing.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from realtime.messages import Pcm
from workers import prosody
from workers.sound import trimmed

RATE_HZ = 16_000
HOP = 256  # 16 ms
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
FEATURES = len(EMOTIONS)  # numbers that `VoiceEncoder.features` makes of an utterance
_WINDOW = 400  # 25 ms
_FFT = 512
_FLOOR = 1e-10  # power; -100 dB of full scale
_RANGE = 14.0  # nepers of power below the utterance's mean that are kept (61 dB)
_ACTIVE = 5.0  # and that count as speech (22 dB)
_FAR = 4.0  # deviations
_LEVEL = 0.05  # root mean square of what is measured


@dataclass(frozen=True, slots=True)
class VoiceEncoderConfig:
    """The network's shape; travels with its weights."""

    mels: int = 64
    low_hz: float = 60.0
    high_hz: float = 7_600.0
    # A member each: 0 takes one mean from all bands, 1 a mean from each, and no spectral envelope is left.
    band_norms: tuple[float, ...] = (0.75, 1.0)
    stem: int = 32  # channels at half of the frames and bands
    widths: tuple[int, ...] = (64, 128)  # channels of a block; one that widens halves frames and bands
    frame: int = 192  # a frame as the pooling sees it
    heads: int = 4  # of the pooling
    embedding: int = 128  # of all members together
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.frame % self.heads or self.embedding % len(self.band_norms):
            raise ValueError("frame must be divisible by heads, embedding by the number of members")


class Voice(NamedTuple):
    """What the encoder says of B utterances."""

    embedding: Tensor  # [B, D]
    logits: Tensor  # [B, 8], of EMOTIONS; of a whole encoder: logarithms of the mean posterior
    intensity: Tensor  # [B], logit of "strong" against "normal"


class LogMel(nn.Module):
    """[B, S] -> [B, T, M], natural logarithm of power; frame t is centred on sample 256 t."""

    window: Tensor
    bank: Tensor

    def __init__(self, config: VoiceEncoderConfig) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        self.register_buffer("bank", mel_bank(config), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        wave = fn.pad(wave, (_FFT // 2, _FFT // 2))
        spectrum = torch.stft(wave, _FFT, HOP, _WINDOW, self.window, center=False, return_complex=True)
        power = (spectrum.real.square() + spectrum.imag.square()) / _WINDOW  # [B, 257, T]
        return torch.log(power.transpose(1, 2) @ self.bank + _FLOOR)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, [B, C, F, T] -> [B, C', F', T']: halved where C' is not C."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = stride = 1 if before == after else 2
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor, left: Tensor | None) -> tuple[Tensor, Tensor | None]:
        left = left if left is None else -(-left // self.stride)
        y = kept(fn.relu(self.first_norm(self.first(x)), inplace=True), left)
        y = self.second_norm(self.second(y)) + self.shortcut(x)
        return kept(fn.relu(y, inplace=True), left), left


class Pooling(nn.Module):
    """Attention over time, a weight a head: weighted mean and deviation, [B, C, T] -> [B, 2 C]."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.score = nn.Sequential(nn.Conv1d(channels, 64, 1), nn.Tanh(), nn.Conv1d(64, heads, 1))

    def forward(self, x: Tensor, left: Tensor | None) -> Tensor:
        score = self.score(x).float()  # [B, H, T]
        if left is not None:
            score = score.masked_fill(~real_frames(left, x.shape[-1])[:, None], -torch.inf)
        weight = score.softmax(-1).unsqueeze(2)  # [B, H, 1, T]
        parts = torch.stack(x.float().chunk(self.heads, 1), 1)  # [B, H, C / H, T]
        mean = (weight * parts).sum(-1)
        variance = (weight * (parts - mean.unsqueeze(-1)).square()).sum(-1)
        return torch.cat([mean, (variance + 1e-4).sqrt()], 1).flatten(1)


class Member(nn.Module):
    """One network from log-mels to Voice; the encoder is a few that were trained apart."""

    def __init__(self, config: VoiceEncoderConfig, band_norm: float) -> None:
        super().__init__()
        self.band_norm = band_norm
        self.stem = nn.Conv2d(1, config.stem, 5, 2, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.stem)
        befores = (config.stem, *config.widths)
        blocks = list(map(Residual, befores, config.widths))
        self.blocks = nn.ModuleList(blocks)
        bands = -(-config.mels // (2 * math.prod(block.stride for block in blocks)))
        self.frame = nn.Conv1d(befores[-1] * bands, config.frame, 1, bias=False)
        self.frame_norm = nn.BatchNorm1d(config.frame)
        self.pooling = Pooling(config.frame, config.heads)
        self.dropout = nn.Dropout(config.dropout)
        size = config.embedding // len(config.band_norms)
        self.embedding = nn.Linear(2 * config.frame, size)
        self.embedding_norm = nn.LayerNorm(size)
        self.emotion = nn.Linear(size, len(EMOTIONS))
        self.intensity = nn.Linear(size, 1)

    def forward(self, log_mel: Tensor, frames: Tensor) -> Voice:
        return self.encode(self.normalised(log_mel, frames), frames)

    def normalised(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """[B, T, M] -> [B, T, M]: mean 0, deviation 1 over the speech of each utterance, whatever its gain.

        Pauses have no part in the statistics: how long a recorder ran on must not change a voice.
        """
        real = real_frames(frames, log_mel.shape[1])  # [B, T]
        level = log_mel.logsumexp(-1).masked_fill(~real, -torch.inf)  # [B, T]
        mean_level = level.logsumexp(-1, keepdim=True) - frames[:, None].log()
        speech = (level >= mean_level - _ACTIVE).unsqueeze(-1) / 1.0  # [B, T, 1]; never empty
        floor = mean_level - math.log(log_mel.shape[2]) - _RANGE
        x = torch.maximum(log_mel, floor.unsqueeze(-1))
        count = speech.sum(1, keepdim=True)
        band = (x * speech).sum(1, keepdim=True) / count  # [B, 1, M]
        x = x - self.band_norm * band - (1.0 - self.band_norm) * band.mean(-1, keepdim=True)
        variance = (x.square() * speech).sum((1, 2), keepdim=True) / (count * log_mel.shape[2])
        return x / (variance + 1e-2).sqrt() * real.unsqueeze(-1)

    def encode(self, x: Tensor, frames: Tensor | None) -> Voice:
        """x [B, T, M] from `normalised`, frames [B] or None where every row is full -> Voice."""
        x = x.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)  # [B, 1, M, T]
        left = frames if frames is None else -(-frames // 2)
        x = kept(fn.relu(self.stem_norm(self.stem(x)), inplace=True), left)
        for block in self.blocks:
            x, left = block(x, left)  # [B, C, F, T]
        x = fn.relu(self.frame_norm(self.frame(x.flatten(1, 2))))  # [B, frame, T]
        pooled = self.dropout(self.pooling(x, left))
        embedding = self.embedding_norm(self.embedding(pooled))
        hidden = self.dropout(embedding)
        return Voice(embedding, self.emotion(hidden), self.intensity(hidden).squeeze(1))


class ProsodyScores(nn.Module):
    """What prosody says of each emotion: a linear score, [B, K] -> [B, 8].

    Linear, so that a score less the mean of a person's scores is the score of how far the prosody is from
    what is usual for that person: whoever keeps running means needs eight numbers, and no prosody.
    """

    mean: Tensor  # [K] over people
    scale: Tensor  # [K]
    weight: Tensor  # [8, K]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(prosody.SIZE))
        self.register_buffer("scale", torch.ones(prosody.SIZE))
        self.register_buffer("weight", torch.zeros(len(EMOTIONS), prosody.SIZE))

    def standardised(self, numbers: Tensor) -> Tensor:
        """[B, K] in deviations from the mean; what is beyond all that was heard in training is cut off."""
        return ((numbers - self.mean) / self.scale).clamp(-_FAR, _FAR)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.standardised(numbers) @ self.weight.T


class VoiceEncoder(nn.Module):
    """Utterances -> Voice. Any gain and length; exact for each utterance whatever it is batched with."""

    def __init__(self, config: VoiceEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config)
        self.members = nn.ModuleList(Member(config, share) for share in config.band_norms)
        self.prosody = ProsodyScores()

    def forward(self, wave: Tensor, samples: Tensor) -> Voice:
        """wave [B, S] float, 16 kHz; samples [B] int, how many of each row are real (at least 1)."""
        real = real_frames(samples, wave.shape[1])
        return self.hear(self.log_mel(wave.masked_fill(~real, 0.0)), samples // HOP + 1)

    def hear(self, log_mel: Tensor, frames: Tensor) -> Voice:
        """log_mel [B, T, M], frames [B] -> the members' embeddings side by side and their mean posterior."""
        voices = [member(log_mel, frames) for member in self.members]
        posterior = torch.stack([voice.logits.softmax(-1) for voice in voices]).mean(0)
        intensity = torch.stack([voice.intensity for voice in voices]).mean(0)
        return Voice(
            torch.cat([voice.embedding for voice in voices], 1), posterior.clamp(min=1e-9).log(), intensity
        )

    def features(self, voice: Voice, measured: Tensor) -> Tensor:
        """[B, 8], what a fusion is given of Voice and `measure` [B, K]: log odds less their mean.

        Not the embedding: its axes are the accident of one training, so that vectors of encoders trained on
        different folds cannot be laid side by side. Odds mean the same whoever says them, and so only they
        let a fusion learn from utterances of people whom their encoder has never heard.
        """
        odds: Tensor = voice.logits + self.prosody(measured)
        return odds - odds.mean(1, keepdim=True)


def measure(pcm: Pcm) -> Pcm:
    """[S], 16 kHz, not empty -> float32 [K], see `workers.prosody`."""
    speech = trimmed(pcm)
    even = (speech * (_LEVEL / max(float(np.sqrt(np.square(speech).mean())), 1e-6))).astype(np.float32)
    with torch.inference_mode():
        log_mel = _measuring()(torch.from_numpy(even)[None])[0].numpy()
    return prosody.prosody(even, log_mel)


@functools.cache
def _measuring() -> LogMel:
    """The same for every encoder, whatever its shape."""
    return LogMel(VoiceEncoderConfig(mels=prosody.MELS))


def real_frames(left: Tensor, size: int) -> Tensor:
    """[B] lengths -> [B, size] bool."""
    return torch.arange(size, device=left.device) < left[:, None]


def kept(x: Tensor, left: Tensor | None) -> Tensor:
    """[B, C, F, T] with zeros from frame `left` [B] of each row on; None: every row is full."""
    return x if left is None else x * real_frames(left, x.shape[-1])[:, None, None]


def mel_bank(config: VoiceEncoderConfig) -> Tensor:
    """[257, M] triangles of equal area on the HTK mel scale."""

    def mel(hz: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + hz / 700.0)

    low, high = mel(torch.tensor([config.low_hz, config.high_hz], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, config.mels + 2, dtype=torch.float64)
    bins = mel(torch.linspace(0.0, RATE_HZ / 2, _FFT // 2 + 1, dtype=torch.float64))[:, None]
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = torch.minimum(up, down).clamp(min=0.0)
    return (bank / bank.sum(0).clamp(min=1e-9)).float()
