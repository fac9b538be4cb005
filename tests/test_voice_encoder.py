"""The voice encoder: exact under padding, indifferent to gain, finite on anything, honest about its files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from realtime.errors import ModelUnavailable, SettingsError
from realtime.settings import build
from realtime.settings import load as load_settings
from workers.training.voice import (
    CONDITIONS,
    Augmentation,
    Bank,
    Clip,
    Recipe,
    Schedule,
    around_speech,
    cross_validate,
    decode,
    degraded,
    figures,
    fill_bank,
    fold_of,
    heard_as,
    opus_round_trip,
    read_clips,
    telephone,
    train,
)
from workers.voice_encoder import (
    EMOTIONS,
    HOP,
    Voice,
    VoiceEncoder,
    VoiceEncoderConfig,
    VoiceMeta,
    load,
    save,
    shipped,
)

ROOT = Path(__file__).resolve().parent.parent
SMALL = VoiceEncoderConfig(mels=32, stem=8, widths=(12, 12), frame=16, heads=2, embedding=12)
META = VoiceMeta("voice-test", "1", SMALL, "by itself", "none", ("noise",), {"epochs": 0})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder() -> VoiceEncoder:
    return load(shipped())[0]


@pytest.fixture(scope="module")
def anna() -> Tensor:
    """Six seconds of the demo's first speaker, float32 [S]."""
    return torch.from_numpy(decode(ROOT / "cmath_stream" / "demo" / "anna.opus")[: 6 * 16_000])


def noise(seconds: float, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(seed))


def alone(model: VoiceEncoder, wave: Tensor) -> Tensor:
    with torch.inference_mode():
        voice: Voice = model(wave[None], torch.tensor([len(wave)]))
    return voice.embedding[0]


def cosine(one: Tensor, other: Tensor) -> float:
    return float(fn.cosine_similarity(one, other, dim=0))


def clip(key: str, seconds: float = 0.8) -> Clip:
    """A clip whose pitch tells its emotion."""
    _, _, emotion, intensity, _, _, actor = map(int, key.split("-"))
    at_s = np.arange(int(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 150 * 1.35**emotion * at_s) * (1.0 + np.sin(2 * np.pi * emotion * at_s))
    hiss = np.random.default_rng(actor).normal(0.0, 0.01, len(at_s))
    return Clip(key, (tone + hiss).astype(np.float32), emotion - 1, intensity == 2, actor)


def clips() -> list[Clip]:
    """Four actors, eight emotions."""
    return [
        clip(f"03-01-{emotion:02}-01-01-01-{actor:02}") for emotion in range(1, 9) for actor in (1, 2, 3, 4)
    ]


RECIPE = Recipe(
    SMALL,
    Augmentation(versions=2, opus=0.0, mixup=0.0, time_masks=0, band_masks=0),
    Schedule(epochs=2, batch=16, crop=32, half=False),
)

# ---- the network ---------------------------------------------------------------------------------


def test_shapes(encoder: VoiceEncoder) -> None:
    wave = torch.stack([noise(1.0), noise(1.0, 1)])
    voice = encoder(wave, torch.tensor([16_000, 9_000]))
    assert voice.embedding.shape == (2, encoder.config.embedding)
    assert voice.logits.shape == (2, len(EMOTIONS))
    assert voice.intensity.shape == (2,)


def test_it_is_small_enough() -> None:
    assert sum(weight.numel() for weight in VoiceEncoder(VoiceEncoderConfig()).parameters()) <= 1_500_000
    assert shipped().stat().st_size < 4_000_000


def test_the_same_twice(encoder: VoiceEncoder, anna: Tensor) -> None:
    assert torch.equal(alone(encoder, anna), alone(encoder, anna))


def test_a_batch_says_what_each_says_alone(encoder: VoiceEncoder, anna: Tensor) -> None:
    """Of different lengths, and with garbage where a row has ended."""
    pieces = [anna[:70_001], anna[20_000:36_000], noise(0.21), anna[5_000:40_123]]
    wave = torch.full((4, 80_000), torch.nan)
    for row, piece in zip(wave, pieces, strict=True):
        row[: len(piece)] = piece
    with torch.inference_mode():
        together = encoder(wave, torch.tensor([len(piece) for piece in pieces])).embedding
    for row, piece in zip(together, pieces, strict=True):
        assert torch.allclose(row, alone(encoder, piece), atol=2e-4)


@pytest.mark.parametrize(
    "wave",
    [
        torch.zeros(16_000),
        torch.zeros(1),
        noise(0.001),
        torch.ones(8_000),
        (100.0 * noise(1.0)).clamp(-1.0, 1.0),
        1e-7 * noise(1.0),
        torch.cat([torch.zeros(40_000), noise(0.05), torch.zeros(40_000)]),
    ],
    ids=["silence", "one sample", "short", "constant", "clipped", "faint", "click"],
)
def test_anything_gives_finite_numbers(encoder: VoiceEncoder, wave: Tensor) -> None:
    voice = encoder(wave[None], torch.tensor([len(wave)]))
    assert all(tensor.isfinite().all() for tensor in voice)


@pytest.mark.parametrize(("gain", "bound"), [(0.03, 0.98), (0.3, 0.999), (3.0, 0.999)])
def test_gain_changes_nothing(encoder: VoiceEncoder, anna: Tensor, gain: float, bound: float) -> None:
    """Or little, where the quietest bands of a faint voice sink under the floor of -100 dB."""
    assert cosine(alone(encoder, anna), alone(encoder, gain * anna)) > bound


def test_silence_around_changes_little(encoder: VoiceEncoder, anna: Tensor) -> None:
    speech = anna[:48_000]
    around = torch.cat([torch.zeros(8_000), speech, torch.zeros(8_000)])
    assert cosine(alone(encoder, speech), alone(encoder, around)) > 0.9


@pytest.mark.parametrize("bit_rate", [16_000, 24_000])
def test_a_call_changes_little(encoder: VoiceEncoder, anna: Tensor, bit_rate: int) -> None:
    """Cosine .95 is the stated bound; different clips of one actor lie at .13, the nearest 5 % above .80."""
    heard = torch.from_numpy(opus_round_trip(anna.numpy(), bit_rate))
    assert cosine(alone(encoder, anna), alone(encoder, heard)) > 0.95


def test_it_is_exported_whole_with_any_batch_and_length(anna: Tensor) -> None:
    torch.manual_seed(0)
    model = VoiceEncoder(SMALL).eval()
    batch, samples = (
        torch.export.Dim("batch", min=1, max=64),
        torch.export.Dim("samples", min=3_200, max=480_000),
    )
    example = (torch.stack([anna[:32_000], anna[32_000:64_000]]), torch.tensor([32_000, 20_000]))
    program = torch.export.export(model, example, dynamic_shapes=({0: batch, 1: samples}, {0: batch}))
    wave, lengths = anna[:75_000].reshape(3, -1), torch.tensor([25_000, 7_000, 24_000])
    with torch.inference_mode():
        exported, eager = program.module()(wave, lengths), model(wave, lengths)
    assert torch.allclose(exported.embedding, eager.embedding, atol=1e-4)


@pytest.mark.gpu
def test_a_batch_on_the_gpu(encoder: VoiceEncoder, anna: Tensor) -> None:
    lengths = torch.tensor([48_000, 30_000])
    wave = anna.reshape(2, -1)
    on_gpu = VoiceEncoder(encoder.config).eval()
    on_gpu.load_state_dict(encoder.state_dict())
    there = on_gpu.cuda()(wave.cuda(), lengths.cuda()).embedding.cpu()
    assert torch.allclose(there, encoder(wave, lengths).embedding, atol=2e-2)


def test_a_config_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="divisible by heads"):
        VoiceEncoderConfig(frame=10, heads=4)
    with pytest.raises(ValueError, match="number of members"):
        VoiceEncoderConfig(band_norms=(0.0, 0.5, 1.0), embedding=128)


def test_the_posterior_is_the_members_mean(encoder: VoiceEncoder, anna: Tensor) -> None:
    log_mel, frames = encoder.log_mel(anna[None]), torch.tensor([len(anna) // HOP + 1])
    posteriors = [member(log_mel, frames).logits.softmax(-1) for member in encoder.members]
    assert torch.allclose(
        encoder.hear(log_mel, frames).logits.exp(), sum(posteriors) / len(posteriors), atol=1e-6
    )


# ---- its files -----------------------------------------------------------------------------------


def test_what_is_shipped_says_what_it_is() -> None:
    model, meta = load(shipped())
    record = json.loads(shipped().with_suffix(".json").read_text("utf-8"))
    assert (meta.name, meta.version, record["dim"]) == ("voice-cnn", "1", model.config.embedding)
    assert "BY-NC-SA" in meta.licence
    assert not model.training
    assert shipped().with_suffix(".md").exists()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VoiceEncoder(SMALL).eval()
    save(tmp_path / "v.safetensors", model, META)
    again, meta = load(tmp_path / "v.safetensors")
    assert meta == META
    assert torch.equal(alone(model, noise(0.5)), alone(again, noise(0.5)))


@pytest.mark.parametrize(
    "fault", ["weights", "no weights", "no json", "format", "config", "labels", "nonsense"]
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "v.safetensors"
    save(path, VoiceEncoder(SMALL), META)
    card = path.with_suffix(".json")
    record = json.loads(card.read_bytes())
    if fault == "weights":
        path.write_bytes(path.read_bytes()[:-7])
    elif fault == "no weights":
        path.unlink()
    elif fault == "no json":
        card.write_text("not JSON")
    elif fault == "nonsense":
        card.write_text("[]")
    else:
        changed = {"format": 99, "config": record["config"] | {"embedding": 13}, "labels": ["joy"]}
        card.write_text(json.dumps(record | {fault: changed[fault]}))
    with pytest.raises(ModelUnavailable) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "v." in str(caught.value)


# ---- its training --------------------------------------------------------------------------------


def test_one_batch_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = VoiceEncoder(SMALL).train()
    wave = torch.stack([noise(0.25, seed) for seed in range(8)])
    lengths, label = torch.full((8,), wave.shape[1]), torch.arange(8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = fn.cross_entropy(model(wave, lengths).logits, label)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert loss.item() < 0.3


def test_the_same_seed_gives_the_same_weights() -> None:
    heard = clips()
    bank = fill_bank(heard, RECIPE, progress=False)
    one, same, other = (train(RECIPE, heard, bank, seed=seed, progress=False) for seed in (1, 1, 2))
    assert torch.equal(alone(one, noise(0.5)), alone(same, noise(0.5)))
    assert not torch.equal(alone(one, noise(0.5)), alone(other, noise(0.5)))


def test_cross_validation_keeps_actors_apart_and_finished_folds(tmp_path: Path) -> None:
    everyone = clips()
    bank = fill_bank(everyone, RECIPE, progress=False)
    heard = {condition: heard_as(everyone, RECIPE, condition) for condition in CONDITIONS}
    run = cross_validate(RECIPE, everyone, bank, heard, folds=2, keep=tmp_path, progress=False)
    assert {clip.actor: int(fold) for clip, fold in zip(everyone, run.fold, strict=True)} == {
        1: 0,
        2: 0,
        3: 1,
        4: 1,
    }
    assert all(np.allclose(rows.sum(axis=1), 1.0, atol=1e-5) for rows in run.posterior.values())
    kept = cross_validate(RECIPE, everyone, Bank(()), heard, folds=2, keep=tmp_path, progress=False)
    assert np.array_equal(kept.embedding, run.embedding)
    found = figures(everyone, [run, kept])
    assert (found["clips"], found["actors"], found["folds"], found["seeds"]) == (32, 4, 2, 2)
    assert set(found["accuracy"]) == set(CONDITIONS)
    json.dumps(found)


def test_every_fold_has_as_many_women_as_men() -> None:
    for number in range(5):
        actors = [actor for actor in range(1, 21) if fold_of(actor, 5) == number]
        assert len(actors) == 4
        assert sum(actor % 2 for actor in actors) == 2


def test_conditions_are_the_same_at_every_call_and_change_what_they_should() -> None:
    one = clip("03-01-05-02-01-01-07")
    for condition in CONDITIONS:
        heard = degraded(one, condition)
        assert heard.shape == one.pcm.shape
        assert heard.dtype == np.float32
        assert np.array_equal(heard, degraded(one, condition))
    high = np.sin(2 * np.pi * 5_000 * np.arange(16_000) / 16_000).astype(np.float32)
    assert np.abs(telephone(high)).max() < 1e-3


def test_silence_of_the_recorder_is_cut_off() -> None:
    speech = noise(0.5).numpy()
    silence = np.zeros(16_000, np.float32)
    assert len(around_speech(np.concatenate([silence, speech, silence]), 0.1)) == 8_000 + 2 * 1_600


def test_clips_are_read_by_their_names(tmp_path: Path) -> None:
    for key in ("03-01-08-02-01-01-02", "03-01-01-01-01-01-01"):
        (tmp_path / f"actor_{key[-2:]}").mkdir()
        (tmp_path / f"actor_{key[-2:]}" / f"{key}.flac").write_bytes(flac(noise(0.1).numpy()))
    first, second = read_clips(tmp_path)
    assert (first.emotion, first.strong, first.actor, len(first.pcm)) == (0, False, 1, 1_600)
    assert (EMOTIONS[second.emotion], second.strong, second.actor) == ("surprised", True, 2)


def test_the_recipe_is_read_and_a_mistyped_key_refused() -> None:
    assert (
        load_settings(Recipe, ROOT / "configs" / "train-voice.toml", {}).network == load(shipped())[1].config
    )
    with pytest.raises(SettingsError, match="schedule.epoch"):
        build(Recipe, {"schedule": {"epoch": 3}})


def flac(pcm: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bytes:
    store = io.BytesIO()
    with av.open(store, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((pcm[None] * 32_767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return store.getvalue()
