"""Training of the voice encoder on RAVDESS: clips in, weights and honest figures out. Seeded throughout.

Figures come from cross-validation in which a fold is a set of actors that the fold's model never heard.
Augmentation works on waveforms and is done once: a bank keeps several versions of every clip as log-mels, and
an epoch takes one of them, a crop and a mask.

    python -m workers.training.voice --data ravdess --out out        # cross-validates, then trains on all actors
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as fn
from torch.optim import swa_utils

from realtime.errors import CmathStreamError, MediaError
from realtime.settings import load as load_settings
from workers.voice import trimmed
from workers.voice_encoder import (
    EMOTIONS,
    RATE_HZ,
    Member,
    Voice,
    VoiceEncoder,
    VoiceEncoderConfig,
    VoiceMeta,
    save,
)

Pcm = NDArray[np.float32]  # [S] mono 16 kHz
Rng = np.random.Generator
CONDITIONS = ("clean", "telephone", "opus", "noise")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a clip goes through; chances are per version of a clip."""

    versions: int = 10  # of each clip in the bank
    untouched: float = 0.2  # chance of nothing below but speed
    speed: float = 1.15  # resampling, either way
    tempo: float = 1.15  # without a change of pitch, on log-mels
    tilt_db: float = 3.0  # per octave, deviation
    ripple_db: float = 4.0  # of a smooth random response, deviation
    band: float = 0.3  # chance of a telephone-like band
    low_pass: float = 0.2  # chance of a codec-like low-pass
    opus: float = 0.12  # chance of a true Opus round trip
    reverb: float = 0.25
    noise: float = 0.5
    noise_db: tuple[float, ...] = (5.0, 30.0)
    clip: float = 0.1
    time_masks: int = 2
    time_mask: int = 12  # frames at most
    band_masks: int = 2
    band_mask: int = 8  # mel bands at most
    mixup: float = 0.3  # of the beta distribution; 0 = none


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
    half: bool = True  # bfloat16 convolutions


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on but the data."""

    network: VoiceEncoderConfig = field(default_factory=VoiceEncoderConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what its name says of it."""

    key: str  # file stem
    pcm: Pcm
    emotion: int  # index into EMOTIONS
    strong: bool
    actor: int  # odd: male


@dataclass(frozen=True, slots=True)
class Bank:
    """Augmented log-mels of clips: `frames[i][v]` is version v of clip i, float16 [T, M]."""

    frames: tuple[tuple[NDArray[np.float16], ...], ...]


def read_clips(folder: Path) -> list[Clip]:
    """All RAVDESS speech clips below a folder, by key. Raises MediaError where there are none."""
    paths = sorted(folder.rglob("03-01-*.flac"), key=lambda path: path.stem)
    if not paths:
        raise MediaError(f"{folder}: no RAVDESS clips (actor_*/03-01-*.flac)")
    clips = []
    for path in paths:
        _, _, emotion, intensity, _, _, actor = map(int, path.stem.split("-"))
        clips.append(Clip(path.stem, decode(path), emotion - 1, intensity == 2, actor))
    return clips


def decode(source: Path | io.BytesIO) -> Pcm:
    """Any audio file as mono 16 kHz."""
    with av.open(str(source) if isinstance(source, Path) else source, "r") as container:
        to_mono = av.AudioResampler("flt", "mono", RATE_HZ)
        frames = [*container.decode(audio=0), None]
        pieces = [piece.to_ndarray()[0] for frame in frames for piece in to_mono.resample(frame)]
    return np.concatenate(pieces).astype(np.float32)


# ---- what happens to a voice on its way ------------------------------------------------------------------


def opus_round_trip(pcm: Pcm, bit_rate: int) -> Pcm:
    """[S] -> [S] as a call would hear it: libopus, 20 ms packets, mono."""
    store = io.BytesIO()
    with av.open(store, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, layout="mono", options={"application": "voip"})
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(pcm[None], format="flt", layout="mono")
        frame.sample_rate = RATE_HZ
        to_s16 = av.AudioResampler("s16", "mono", RATE_HZ)
        for piece in [*to_s16.resample(frame), None]:
            container.mux(stream.encode(piece))
    store.seek(0)
    heard = decode(store)[: len(pcm)]
    return np.pad(heard, (0, len(pcm) - len(heard)))


def telephone(pcm: Pcm) -> Pcm:
    """[S] -> [S] with 300 to 3400 Hz left, as 8 kHz sampling leaves it."""
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1.0 / RATE_HZ)
    return np.fft.irfft(np.where((hz >= 300.0) & (hz <= 3_400.0), spectrum, 0.0), len(pcm)).astype(np.float32)


def noisy(pcm: Pcm, snr_db: float, colour: float, rng: Rng) -> Pcm:
    """[S] + noise of power 1 / f^colour, so far below the speech's mean power."""
    noise = np.fft.rfft(rng.standard_normal(len(pcm)))
    noise *= np.maximum(np.arange(len(noise)), 20.0) ** (-colour / 2.0)
    hiss = np.fft.irfft(noise, len(pcm))
    power = float(np.square(trimmed(pcm)).mean()) if np.abs(pcm).max() > 0.0 else 0.0
    gain = math.sqrt(power / 10.0 ** (snr_db / 10.0) / max(float(np.square(hiss).mean()), 1e-20))
    return (pcm + gain * hiss).astype(np.float32)


def degraded(clip: Clip, condition: str) -> Pcm:
    """A clip under one of CONDITIONS, the same at every call."""
    rng = np.random.default_rng([int(part) for part in clip.key.split("-")])
    if condition == "telephone":
        return telephone(clip.pcm)
    if condition == "opus":
        return opus_round_trip(clip.pcm, int(rng.choice([16_000, 24_000])))
    if condition == "noise":
        return noisy(clip.pcm, 15.0, float(rng.uniform(0.0, 1.5)), rng)
    return clip.pcm


def varied(pcm: Pcm, how: Augmentation, rng: Rng) -> Pcm:
    """A random other recording of the same utterance: another voice, room, line and microphone."""
    if rng.random() < how.untouched:
        how = replace(how, tilt_db=0.0, ripple_db=0.0, band=0.0, low_pass=0.0, opus=0.0)
        how = replace(how, reverb=0.0, noise=0.0, clip=0.0)
    if rng.random() < how.opus:
        pcm = opus_round_trip(pcm, int(rng.integers(10_000, 32_000)))
    block = RATE_HZ // 50  # whole blocks keep the transforms fast
    pcm = np.pad(pcm, (0, -len(pcm) % block))
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1.0 / RATE_HZ)
    octave = np.log2(np.maximum(hz, 50.0) / 1_000.0)
    knots = np.linspace(octave[0], octave[-1], 8)
    gain_db = how.tilt_db * rng.standard_normal() * octave
    gain_db += np.interp(octave, knots, how.ripple_db * rng.standard_normal(8))
    spectrum *= 10.0 ** (np.clip(gain_db, -40.0, 40.0) / 20.0)
    if rng.random() < how.reverb:
        seconds = np.arange(RATE_HZ // 2) / RATE_HZ
        tail = rng.standard_normal(len(seconds)) * np.exp(-6.9 * seconds / rng.uniform(0.1, 0.6))
        tail *= math.sqrt(10.0 ** (-rng.uniform(0.0, 12.0) / 10.0) / np.square(tail).sum())
        tail[0] += 1.0
        spectrum *= np.fft.rfft(tail, len(pcm))
    line = rng.random()
    if line < how.band:
        spectrum[(hz < rng.uniform(100.0, 350.0)) | (hz > rng.uniform(3_000.0, 4_000.0))] = 0.0
    elif line < how.band + how.low_pass:
        spectrum[hz > rng.uniform(3_500.0, 7_500.0)] = 0.0
    blocks = round(len(pcm) / block / how.speed ** rng.uniform(-1.0, 1.0))
    heard = np.fft.irfft(spectrum, blocks * block).astype(np.float32)  # another length: resampled
    if rng.random() < how.noise:
        heard = noisy(heard, rng.uniform(how.noise_db[0], how.noise_db[1]), rng.uniform(-0.5, 2.0), rng)
    if rng.random() < how.clip:
        limit = np.abs(heard).max() * rng.uniform(0.2, 0.7)
        heard = np.clip(heard, -limit, limit)
    return heard / max(float(np.abs(heard).max()), 1e-6)


def around_speech(pcm: Pcm, margin_s: float) -> Pcm:
    """A clip from the first to the last 10 ms within 30 dB of its loud parts, and a margin."""
    block = RATE_HZ // 100
    power = np.square(pcm[: len(pcm) // block * block]).reshape(-1, block).mean(axis=1)
    active = np.flatnonzero(power > 1e-3 * np.percentile(power, 95))
    margin = int(margin_s * RATE_HZ)
    return pcm[max(0, int(active[0]) * block - margin) : (int(active[-1]) + 1) * block + margin]


# ---- clips as log-mels -----------------------------------------------------------------------------------


def fill_bank(clips: Sequence[Clip], recipe: Recipe, *, seed: int = 0, progress: bool = True) -> Bank:
    """`versions` of every clip, varied; what becomes of a clip depends on its name and the seed alone."""
    log_mel = VoiceEncoder(recipe.network).log_mel
    how = recipe.augmentation
    rows = []
    for clip in _watched(clips, "augmenting", progress):
        rng = np.random.default_rng([seed, *map(int, clip.key.split("-"))])
        speech = around_speech(clip.pcm, 0.3)
        rows.append(tuple(_log_mel(log_mel, varied(speech, how, rng)) for _ in range(how.versions)))
    return Bank(tuple(rows))


def heard_as(clips: Sequence[Clip], recipe: Recipe, condition: str) -> Bank:
    """Whole clips under one of CONDITIONS, one version each, to be judged on."""
    log_mel = VoiceEncoder(recipe.network).log_mel
    return Bank(tuple((_log_mel(log_mel, degraded(clip, condition)),) for clip in clips))


def _log_mel(log_mel: torch.nn.Module, pcm: Pcm) -> NDArray[np.float16]:
    with torch.inference_mode():
        frames: NDArray[np.float16] = log_mel(torch.from_numpy(pcm)[None])[0].half().numpy()
    return frames


# ---- learning --------------------------------------------------------------------------------------------


def train(
    recipe: Recipe,
    clips: Sequence[Clip],
    bank: Bank,
    *,
    seed: int,
    title: str = "training",
    progress: bool = True,
) -> VoiceEncoder:
    """An encoder in eval mode, its members trained one after the other; a seed gives the same weights."""
    torch.set_num_threads(recipe.schedule.threads)
    torch.manual_seed(seed)
    model = VoiceEncoder(recipe.network)
    for number, member in enumerate(model.members):
        assert isinstance(member, Member)
        rng = np.random.default_rng((seed, number))
        _train_member(member, recipe, clips, bank, rng, f"{title}, member {number + 1}", progress)
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
    for _ in _watched(range(plan.epochs), title, progress):
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


def judge(model: VoiceEncoder, bank: Bank, chosen: Sequence[int]) -> Voice:
    """What the model says of clips, each whole, in the order given; the longest together, to pad little."""
    order = sorted(range(len(chosen)), key=lambda i: len(bank.frames[chosen[i]][0]))
    parts: list[Voice] = []
    for first in range(0, len(order), 16):
        rows = [torch.from_numpy(bank.frames[chosen[i]][0]).float() for i in order[first : first + 16]]
        frames = torch.tensor([len(row) for row in rows])
        with torch.inference_mode():
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            parts.append(model.hear(padded, frames))
    back = torch.tensor(order).argsort()
    embedding, logits, intensity = (torch.cat(tensors)[back] for tensors in zip(*parts, strict=True))
    return Voice(embedding, logits, intensity)


# ---- judging ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What models said of every clip, each clip by a model that never heard its actor. One seed."""

    embedding: NDArray[np.float32]  # [n, D], clean; each fold's model has axes of its own
    posterior: dict[str, NDArray[np.float32]]  # by condition, [n, 8]
    fold: NDArray[np.int64]  # [n]


def fold_of(actor: int, folds: int) -> int:
    """Pairs of actors are dealt out, so that every fold has as many women as men."""
    return (actor - 1) // 2 % folds


def cross_validate(
    recipe: Recipe,
    clips: Sequence[Clip],
    bank: Bank,
    heard: Mapping[str, Bank],
    *,
    folds: int = 5,
    seed: int = 0,
    keep: Path | None = None,
    progress: bool = True,
) -> OutOfFold:
    """Train a model a fold on the other folds' actors and ask it about its own, under every condition.

    With `keep`, a finished fold is written there, and taken from there by a later run of the same recipe.
    """
    fold = np.array([fold_of(clip.actor, folds) for clip in clips])
    embedding = np.zeros((len(clips), recipe.network.embedding), np.float32)
    posterior = {condition: np.zeros((len(clips), len(EMOTIONS)), np.float32) for condition in heard}
    mark = hashlib.sha256(repr((recipe, folds, [clip.key for clip in clips])).encode()).hexdigest()[:8]
    for number in range(folds):
        inside = np.flatnonzero(fold != number).tolist()
        outside = np.flatnonzero(fold == number).tolist()
        path = keep / f"{mark}-seed{seed}-fold{number}.npz" if keep else None
        if path is not None and path.exists():
            with np.load(path) as found:
                answers = dict(found)
        else:
            part = Bank(tuple(bank.frames[i] for i in inside))
            title = f"seed {seed}, fold {number + 1} of {folds}"
            model = train(recipe, [clips[i] for i in inside], part, seed=seed, title=title, progress=progress)
            voices = {condition: judge(model, heard[condition], outside) for condition in heard}
            answers = {condition: voice.logits.softmax(1).numpy() for condition, voice in voices.items()}
            answers["embedding"] = voices["clean"].embedding.numpy()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, **answers)
        embedding[outside] = answers.pop("embedding")
        for condition, rows in answers.items():
            posterior[condition][outside] = rows
    return OutOfFold(embedding, posterior, fold)


def figures(clips: Sequence[Clip], runs: Sequence[OutOfFold]) -> dict[str, Any]:
    """What the model card reports: means over folds and seeds, in per cent where not said otherwise."""
    label = np.array([clip.emotion for clip in clips])
    male = np.array([clip.actor % 2 == 1 for clip in clips])
    actor = np.array([clip.actor for clip in clips])
    hits = {
        condition: np.array([run.posterior[condition].argmax(1) == label for run in runs])  # [seeds, n]
        for condition in runs[0].posterior
    }
    clean, fold = hits["clean"], runs[0].fold
    by_fold = [[_percent(hit[fold == number]) for number in np.unique(fold)] for hit in clean]
    confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)))
    for run in runs:
        np.add.at(confusion, (label, run.posterior["clean"].argmax(1)), 1.0 / len(runs))
    recall = {name: _percent(clean[:, label == number]) for number, name in enumerate(EMOTIONS)}
    return {
        "clips": len(clips),
        "actors": len(np.unique(actor)),
        "folds": len(np.unique(fold)),
        "seeds": len(runs),
        "accuracy": {condition: _percent(hit) for condition, hit in hits.items()},
        "mean_over_folds": round(float(np.mean(by_fold)), 2),
        "by_seed": [_percent(hit) for hit in clean],
        "by_fold": by_fold,
        "worst_and_best_actor": [
            function([_percent(clean[:, actor == number]) for number in np.unique(actor)])
            for function in (min, max)
        ],
        "women": {condition: _percent(hit[:, ~male]) for condition, hit in hits.items()},
        "men": {condition: _percent(hit[:, male]) for condition, hit in hits.items()},
        "recall": recall,
        "macro_recall": round(float(np.mean(list(recall.values()))), 2),
        "confusion": {
            name: dict(zip(EMOTIONS, np.round(row, 1).tolist(), strict=True))
            for name, row in zip(EMOTIONS, confusion, strict=True)
        },
    }


def _percent(hits: NDArray[np.bool_]) -> float:
    return round(100.0 * float(hits.mean()), 2)


def _watched(items: Any, title: str, progress: bool) -> Iterable[Any]:
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        disable=not progress,
    )  # fmt: skip
    with bar:
        yield from bar.track(items, description=title)


NAME, VERSION = "voice-cnn", "1"
LICENCE = "CC BY-NC-SA 4.0, which RAVDESS asks of work built on it (see voice.md)"
NORMALISATION = "log-mels centred and scaled by the speech of the utterance itself: gain and pauses cancel"
DATA_SOURCES = ("RAVDESS speech, audio only, actors 1-20: Livingstone & Russo 2018 (CC BY-NC-SA 4.0)",)


def main() -> int:
    """Cross-validate, then train on all actors; the last line printed is one JSON object of the figures."""
    parser = argparse.ArgumentParser(description="Train the voice encoder.")
    parser.add_argument("--data", type=Path, required=True, help="folder of RAVDESS, actor_*/03-01-*.flac")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, and for finished folds")
    parser.add_argument("--recipe", type=Path, default=Path("configs/train-voice.toml"))
    parser.add_argument("--folds", type=int, default=5, help="0: no cross-validation")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    try:
        recipe = load_settings(Recipe, given.recipe, {})
        clips = read_clips(given.data)
    except CmathStreamError as error:
        print(error)
        return 1
    torch.set_num_threads(recipe.schedule.threads)
    bank = fill_bank(clips, recipe)
    found: dict[str, Any] = {}
    if given.folds:
        heard = {condition: heard_as(clips, recipe, condition) for condition in CONDITIONS}
        runs = []
        for seed in range(given.seeds):
            runs.append(
                cross_validate(
                    recipe, clips, bank, heard, folds=given.folds, seed=seed, keep=given.out / "folds"
                )
            )
            save_out_of_fold(given.out / f"out-of-fold-{seed}.npz", clips, runs[-1])
        found = figures(clips, runs)
    model = train(recipe, clips, bank, seed=recipe.schedule.seed, title="all actors")
    training = {"recipe": asdict(recipe), "cross_validation": found}
    meta = VoiceMeta(NAME, VERSION, recipe.network, NORMALISATION, LICENCE, DATA_SOURCES, training)
    save(given.out / "voice.safetensors", model, meta)
    print(json.dumps(found))
    return 0


def save_out_of_fold(path: Path, clips: Sequence[Clip], run: OutOfFold) -> None:
    """What `OutOfFold` holds with the clips' keys, actors and emotions, as npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        key=np.array([clip.key for clip in clips]),
        actor=np.array([clip.actor for clip in clips]),
        emotion=np.array([clip.emotion for clip in clips]),
        fold=run.fold,
        embedding=run.embedding,
        posterior=run.posterior["clean"],
    )


if __name__ == "__main__":
    raise SystemExit(main())
