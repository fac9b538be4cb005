"""Learning of the voice encoder: clips to a bank of augmented versions, and from it to weights. Seeded.

Augmentation works on waveforms and is done once: the bank keeps several versions of every clip as log-mels,
and an epoch takes one of them, a crop and a mask. Beside them it keeps the prosody of versions of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn
from torch.optim import swa_utils

from realtime.messages import Pcm
from workers.training.progress import watched
from workers.training.ravdess import Clip
from workers.training.voice_augment import Augmentation, Rng, around_speech, degraded, varied
from workers.training.voice_prosody import Measured, ProsodyPlan, elsewhere, fit_scores
from workers.voice_encoder import EMOTIONS, Member, VoiceEncoder, VoiceEncoderConfig, measure


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    epochs: int = 90
    batch: int = 32
    crop: int = 128  # frames
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.15  # share of the run
    smoothing: float = 0.1  # of the labels
    intensity: float = 0.2  # weight of the second task
    average: float = 0.99  # decay of the weights' moving average
    seed: int = 0
    threads: int = 1
    half: bool = False  # bfloat16 convolutions: slower where the processor has none


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on but the data."""

    network: VoiceEncoderConfig = field(default_factory=VoiceEncoderConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    schedule: Schedule = field(default_factory=Schedule)
    prosody: ProsodyPlan = field(default_factory=ProsodyPlan)


@dataclass(frozen=True, slots=True)
class Bank:
    """Versions of n clips, the first of prosody as the clip is."""

    frames: tuple[tuple[NDArray[np.float16], ...], ...]  # [n][versions], log-mels [T, M]
    prosody: Measured  # [versions, n, K]

    def of(self, rows: Sequence[int]) -> Bank:
        """Some of the clips, in that order."""
        return Bank(tuple(self.frames[row] for row in rows), self.prosody[:, rows])


def fill_bank(clips: Sequence[Clip], recipe: Recipe, *, seed: int = 0, progress: bool = True) -> Bank:
    """`versions` of every clip, varied; what becomes of a clip depends on its name and the seed alone."""
    log_mel = VoiceEncoder(recipe.network).log_mel
    how = recipe.augmentation
    frames, measured = [], []
    for clip in watched(clips, "augmenting", progress):
        rng = np.random.default_rng([seed, *map(int, clip.key.split("-"))])
        speech = around_speech(clip.pcm, 0.3)
        frames.append(tuple(_log_mel(log_mel, varied(speech, how, rng)) for _ in range(how.versions)))
        measured.append(elsewhere(clip, speech, how, recipe.prosody, seed))
    return Bank(tuple(frames), np.stack(measured, axis=1))


def heard_as(clips: Sequence[Clip], recipe: Recipe, condition: str) -> Bank:
    """Whole clips under one of CONDITIONS, one version each, to be judged on."""
    log_mel = VoiceEncoder(recipe.network).log_mel
    heard = [degraded(clip, condition) for clip in clips]
    frames = tuple((_log_mel(log_mel, pcm),) for pcm in heard)
    return Bank(frames, np.stack([measure(pcm) for pcm in heard])[None])


def _log_mel(log_mel: torch.nn.Module, pcm: Pcm) -> NDArray[np.float16]:
    with torch.inference_mode():
        frames: NDArray[np.float16] = log_mel(torch.from_numpy(pcm)[None])[0].half().numpy()
    return frames


def train(
    recipe: Recipe,
    clips: Sequence[Clip],
    bank: Bank,
    *,
    seed: int,
    title: str = "training",
    progress: bool = True,
) -> VoiceEncoder:
    """An encoder in eval mode, its parts trained one after the other; a seed gives the same weights."""
    torch.set_num_threads(recipe.schedule.threads)
    torch.manual_seed(seed)
    model = VoiceEncoder(recipe.network)
    for number, member in enumerate(model.members):
        assert isinstance(member, Member)
        rng = np.random.default_rng((seed, number))
        _train_member(member, recipe, clips, bank, rng, f"{title}, member {number + 1}", progress)
    fit_scores(model.prosody, clips, bank.prosody, recipe.prosody, seed)
    return model.eval().requires_grad_(False)


def _train_member(
    member: Member, recipe: Recipe, clips: Sequence[Clip], bank: Bank, rng: Rng, title: str, progress: bool
) -> None:
    """Leave the moving average of the weights in the member."""
    plan, how = recipe.schedule, recipe.augmentation
    mean_of = swa_utils.get_ema_multi_avg_fn(plan.average)  # type: ignore[no-untyped-call]
    averaged = swa_utils.AveragedModel(member, multi_avg_fn=mean_of, use_buffers=True)
    optimiser = torch.optim.AdamW(member.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    steps = max(1, len(clips) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        plan.learning_rate,
        total_steps=steps * plan.epochs,
        pct_start=plan.warm_up,
        cycle_momentum=False,
    )
    emotion = torch.tensor([clip.emotion for clip in clips])
    strong = torch.tensor([float(clip.strong) for clip in clips])
    member.train()
    for _ in watched(range(plan.epochs), title, progress):
        order = rng.permutation(len(clips))
        for step in range(steps):
            chosen = order[step * plan.batch : (step + 1) * plan.batch]
            x = crops(member, [bank.frames[i] for i in chosen], recipe, rng)
            rows = torch.from_numpy(chosen)
            target = fn.one_hot(emotion[rows], len(EMOTIONS)).float()
            force = strong[rows]
            if how.mixup > 0.0:
                share = float(rng.beta(how.mixup, how.mixup))
                other = torch.from_numpy(rng.permutation(len(chosen)))
                x = share * x + (1.0 - share) * x[other]
                target = share * target + (1.0 - share) * target[other]
                force = share * force + (1.0 - share) * force[other]
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.half):
                out = member.encode(x, None)
            loss = fn.cross_entropy(out.logits.float(), target, label_smoothing=plan.smoothing)
            loss = loss + plan.intensity * fn.binary_cross_entropy_with_logits(out.intensity.float(), force)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(member.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(member)
    member.load_state_dict(averaged.module.state_dict())


def crops(
    member: Member, clips: Sequence[tuple[NDArray[np.float16], ...]], recipe: Recipe, rng: Rng
) -> Tensor:
    """A random version, piece and tempo of each clip, masked in places: [B, crop, M].

    A clip shorter than the crop starts anew, so that no row has an end of its own.
    """
    how, size = recipe.augmentation, recipe.schedule.crop
    take = round(size * how.tempo ** rng.uniform(-1.0, 1.0))
    rows = []
    for versions in clips:
        whole = versions[rng.integers(len(versions))]
        start = int(rng.integers(max(1, len(whole) - take + 1)))
        rows.append(np.resize(whole[start:], (take, whole.shape[1])))
    log_mel = torch.from_numpy(np.stack(rows)).float()
    x = member.normalised(log_mel, torch.full((len(rows),), take))
    x = fn.interpolate(x.transpose(1, 2), size, mode="linear").transpose(1, 2).contiguous()
    for row in range(len(clips)):
        for _ in range(how.time_masks):
            width = int(rng.integers(how.time_mask + 1))
            start = int(rng.integers(size - width + 1))
            x[row, start : start + width] = 0.0
        for _ in range(how.band_masks):
            width = int(rng.integers(how.band_mask + 1))
            start = int(rng.integers(recipe.network.mels - width + 1))
            x[row, :, start : start + width] = 0.0
    return x


def judge(model: VoiceEncoder, bank: Bank) -> NDArray[np.float32]:
    """[n, 8] features of the clips of a bank of single versions; the longest together, to pad little."""
    order = sorted(range(len(bank.frames)), key=lambda i: len(bank.frames[i][0]))
    parts: list[Tensor] = []
    for first in range(0, len(order), 16):
        chosen = order[first : first + 16]
        rows = [torch.from_numpy(bank.frames[i][0]).float() for i in chosen]
        frames = torch.tensor([len(row) for row in rows])
        with torch.inference_mode():
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            voice = model.hear(padded, frames)
            parts.append(model.features(voice, torch.from_numpy(bank.prosody[0, chosen])))
    said: NDArray[np.float32] = torch.cat(parts)[torch.tensor(order).argsort()].numpy()
    return said
