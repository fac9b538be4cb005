"""Whose voice is whose in one track: utterances in, turns of numbered speakers out. A guess by sound alone.

Cepstra of the loud frames; pieces of about two seconds are merged while one Gaussian explains two of them
better than one each (Bayesian information criterion: Chen and Gopalakrishnan, DARPA BNTUW 1998), then a
Viterbi pass moves the borders. It learned nothing from anybody: what it hears is the shape of the spectrum,
which tells voices apart, and microphones and shouting too. Knows samples and times; not participants.

Letters: T frames of 16 ms, K cepstra, N pieces or groups of them, S speakers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from realtime.messages import SAMPLE_RATE_HZ, Pcm

MOST = 8  # speakers that are looked for
_HOP_S = 256 / SAMPLE_RATE_HZ
_CEPSTRA = 13  # without the zeroth, which is loudness
_LOUD = 4.0  # nepers of power below the loudest frames of a piece that still are voice
_PIECE_S = 2.0
_THIN = 0.05  # added to variances: a piece of few frames is no thinner than that
_PENALTY = 1.5  # of the criterion
_CHANGE = 60.0  # nepers that a change of speaker must gain
_ROUNDS = 4
_FEWEST = 20  # loud frames that a voice is measured by, once there are borders
_CHANCE, _SUREST = 0.5, 0.8  # bounds of confidence: how often turns of no and of any clear gain were right
_CLEAR = 2.0  # nepers a frame

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]
Bounds = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance as it is compared."""

    start_s: float
    cepstra: Numbers  # [T, K]
    level: Numbers  # [T], nepers of power


@dataclass(frozen=True, slots=True)
class VoiceTurn:
    """A stretch of one voice."""

    speaker: int  # 0.. by first appearance
    start_s: float
    end_s: float
    confidence: float  # how often turns whose voice stands out like this were given to the right person


def hear(pcm: Pcm, start_s: float) -> Heard:
    """What is kept of an utterance, 7 kB a second; it needs no other."""
    import torch

    from workers.voice_encoder import LogMel, VoiceEncoderConfig

    with torch.inference_mode():
        mel = LogMel(VoiceEncoderConfig())(torch.from_numpy(pcm)[None])[0].numpy().astype(np.float64)
    bands = mel.shape[1]
    angles = np.pi * np.outer(np.arange(bands) + 0.5, np.arange(1, _CEPSTRA + 1)) / bands
    return Heard(start_s, mel @ np.cos(angles) * np.sqrt(2 / bands), np.log(np.exp(mel).sum(axis=1)))


def tell_apart(utterances: Sequence[Heard], speakers: int | None) -> list[VoiceTurn]:
    """The turns of this many voices, in order of time; None = as many as there seem to be, at most MOST."""
    if not utterances:
        return []
    cepstra = np.concatenate([each.cepstra for each in utterances])
    level = np.concatenate([each.level for each in utterances])
    ends = np.cumsum([len(each.level) for each in utterances]).tolist()
    bounds: Bounds = list(pairwise([0, *ends]))
    pieces = list(_pieces(bounds))
    loud = np.concatenate([_is_loud(level[first:last]) for first, last in pieces])
    group = _merged([cepstra[first:last][loud[first:last]] for first, last in pieces], speakers)
    voice = np.repeat(group, [last - first for first, last in pieces])
    for _ in range(_ROUNDS):
        fit = np.stack([_fit(cepstra, cepstra[loud & (voice == s)]) for s in range(int(group.max()) + 1)], 1)
        fit[~loud] = 0.0  # a frame that is not loud says nothing of a voice
        voice = np.concatenate([_path(fit[first:last]) for first, last in bounds])
    return list(_turns([each.start_s for each in utterances], bounds, voice, cepstra, loud))


def _pieces(bounds: Bounds) -> Iterator[tuple[int, int]]:
    for first, last in bounds:
        count = max(1, round((last - first) * _HOP_S / _PIECE_S))
        yield from pairwise(np.linspace(first, last, count + 1).astype(int).tolist())


def _is_loud(level: Numbers) -> Flags:
    loud: Flags = level >= np.percentile(level, 95) - _LOUD
    return loud


def _merged(pieces: Sequence[Numbers], speakers: int | None) -> Places:
    """[N], the group of every piece: the nearest two become one until as many are left as there should be."""
    count = np.array([len(piece) for piece in pieces], np.float64)
    total = np.stack([piece.sum(axis=0) for piece in pieces])  # [N, K]
    square = np.stack([piece.T @ piece for piece in pieces])  # [N, K, K]
    own = count * _log_det(count, total, square)
    size = len(pieces)
    distance = np.full((size, size), np.inf)
    free = _CEPSTRA + _CEPSTRA * (_CEPSTRA + 1) / 2  # parameters of a Gaussian

    def measure(one: int, others: Places) -> None:
        """How much worse one Gaussian for both is than one each, the price of a second one deducted."""
        both = count[one] + count[others]
        joint = both * _log_det(both, total[one] + total[others], square[one] + square[others])
        gain = (joint - own[one] - own[others] - _PENALTY * free * np.log(both)) / 2
        distance[np.minimum(one, others), np.maximum(one, others)] = gain

    for one in range(size - 1):
        measure(one, np.arange(one + 1, size))
    group, left = np.arange(size), list(range(size))
    while len(left) > (speakers or 1):
        one, other = divmod(int(distance.argmin()), size)
        if speakers is None and distance[one, other] > 0 and len(left) <= MOST:
            break
        count[one], total[one], square[one] = (each[one] + each[other] for each in (count, total, square))
        own[one] = count[one] * _log_det(count[one], total[one], square[one])
        group[group == other] = one
        left.remove(other)
        distance[other, :] = distance[:, other] = np.inf
        measure(one, np.array([each for each in left if each != one], np.int64))
    order = {int(each): place for place, each in enumerate(dict.fromkeys(group.tolist()))}
    return np.array([order[int(each)] for each in group], np.int64)


def _log_det(count: Numbers | float, total: Numbers, square: Numbers) -> Numbers:
    """Of covariances, from sums: [...], [..., K], [..., K, K] -> [...]."""
    many = np.asarray(count)[..., None]
    mean = total / many
    spread = square / many[..., None] - mean[..., :, None] * mean[..., None, :]
    found: Numbers = np.linalg.slogdet(spread + _THIN * np.eye(_CEPSTRA))[1]
    return found


def _path(fit: Numbers) -> Places:
    """[T, S] -> [T], the likeliest speakers where a change costs."""
    came = np.zeros(fit.shape, np.int64)
    so_far = fit[0].copy()
    stays = np.arange(fit.shape[1])
    for at in range(1, len(fit)):
        best = int(so_far.argmax())
        changed = so_far[best] - _CHANGE
        came[at] = np.where(so_far >= changed, stays, best)
        so_far = np.maximum(so_far, changed) + fit[at]
    path = np.empty(len(fit), np.int64)
    path[-1] = so_far.argmax()
    for at in range(len(fit) - 1, 0, -1):
        path[at - 1] = came[at, path[at]]
    return path


def _turns(
    starts_s: Sequence[float], bounds: Bounds, voice: Places, cepstra: Numbers, loud: Flags
) -> Iterator[VoiceTurn]:
    order = {speaker: place for place, speaker in enumerate(dict.fromkeys(voice.tolist()))}
    for start_s, (first, last) in zip(starts_s, bounds, strict=True):
        changes = [first, *(np.flatnonzero(np.diff(voice[first:last])) + first + 1).tolist(), last]
        for begin, end in pairwise(changes):
            yield VoiceTurn(
                order[int(voice[begin])],
                start_s + (begin - first) * _HOP_S,
                start_s + (end - first) * _HOP_S,
                _confidence(cepstra, voice, loud, begin, end),
            )


def _confidence(cepstra: Numbers, voice: Places, loud: Flags, begin: int, end: int) -> float:
    """From the mean gain of a loud frame over the next best voice, where its own is that of the speaker's
    other turns. No gain makes it sure: voices that are alike are taken for one, and one for two, throughout.
    """
    speaker = int(voice[begin])
    speakers = np.unique(voice)
    if len(speakers) == 1:
        return _SUREST
    elsewhere = loud.copy()
    elsewhere[begin:end] = False
    said = np.flatnonzero(loud[begin:end]) + begin
    if not len(said) or (elsewhere & (voice == speaker)).sum() < _FEWEST:
        return _CHANCE
    fit = {int(s): _fit(cepstra[said], cepstra[elsewhere & (voice == s)]).mean() for s in speakers}
    gain = fit.pop(speaker) - max(fit.values())
    return float(_SUREST - (_SUREST - _CHANCE) * np.exp(-max(gain, 0.0) / _CLEAR))


def _fit(cepstra: Numbers, own: Numbers) -> Numbers:
    """[T] log likelihoods under the Gaussian of `own`, or next to none where that is of too few frames."""
    if len(own) < _FEWEST:
        return np.full(len(cepstra), -1e9)
    spread = np.cov(own.T, bias=True) + _THIN * np.eye(_CEPSTRA)
    away = cepstra - own.mean(axis=0)
    far = np.einsum("tk,tk->t", away @ np.linalg.inv(spread), away)
    fit: Numbers = -(far + np.linalg.slogdet(spread)[1]) / 2
    return fit
