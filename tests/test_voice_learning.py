"""The voice encoder learns, repeats itself under a seed, and is judged in the order of its clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from realtime.errors import SettingsError
from realtime.settings import build
from tests.voices import RECIPE, clips
from workers.training.voice_learning import Recipe, crops, fill_bank, heard_as, judge, train
from workers.voice_encoder import Member, VoiceEncoder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def weights(model: VoiceEncoder) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def test_the_same_seed_gives_the_same_weights() -> None:
    heard = clips()
    bank = fill_bank(heard, RECIPE, progress=False)
    one, same, other = (train(RECIPE, heard, bank, seed=seed, progress=False) for seed in (1, 1, 2))
    assert weights(one) == weights(same) != weights(other)
    assert not one.training


def test_a_clip_becomes_the_same_whatever_it_is_read_with() -> None:
    everyone = clips()
    whole, alone = (fill_bank(some, RECIPE, progress=False) for some in (everyone, everyone[3:4]))
    for one, other in zip(whole.frames[3], alone.frames[0], strict=True):
        assert np.array_equal(one, other)


def test_crops_have_one_size_and_masks_are_silent() -> None:
    masked = replace(RECIPE, augmentation=replace(RECIPE.augmentation, time_masks=1, time_mask=20))
    bank = fill_bank(clips()[:3], masked, progress=False)
    member = VoiceEncoder(masked.network).members[0]
    assert isinstance(member, Member)
    x = crops(member, bank.frames, masked, np.random.default_rng(0))
    assert x.shape == (3, masked.schedule.crop, masked.network.mels)
    assert (x == 0.0).all(2).any()


def test_answers_come_in_the_order_asked_for_whatever_their_lengths() -> None:
    heard = [replace(clip, pcm=clip.pcm[: 4_000 * (1 + place % 3)]) for place, clip in enumerate(clips()[:7])]
    bank = heard_as(heard, RECIPE, "clean")
    model = VoiceEncoder(RECIPE.network).eval()
    together = judge(model, bank)
    for place in range(7):
        np.testing.assert_allclose(judge(model, bank.of([place]))[0], together[place], atol=1e-4)


def test_a_mistyped_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="schedule.epoch"):
        build(Recipe, {"schedule": {"epoch": 3}})
