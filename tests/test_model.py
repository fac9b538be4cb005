"""CMATH does what its definition says, and the streaming claims hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.training.data import Batch, collate, synthetic
from cmath_stream.training.losses import LossWeights, gaussian_kl, losses

DIMS = (("text", 12), ("audio", 9), ("visual", 6))
SMALL = CMATHConfig(dims=DIMS, classes=5, width=16, heads=4, window=4, dropout=0.1)
OFFLINE = replace(SMALL, causal=False, window=None, layers=2)

Inputs = tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)


def tensors(batch: Batch) -> Inputs:
    return (
        tuple(torch.from_numpy(rows) for rows in batch.features),
        torch.from_numpy(batch.presence),
        torch.from_numpy(batch.mask),
        torch.from_numpy(batch.speaker),
    )


def talk(dialogues: int = 3, seed: int = 0, absent: float = 0.3) -> Batch:
    return collate(synthetic(dialogues, [dim for _, dim in DIMS], 5, seed=seed, absent=absent))


def whole(length: int) -> Inputs:
    """One dialogue of `length` utterances, everything present."""
    generator = torch.Generator().manual_seed(length)
    return (
        tuple(torch.randn(1, length, dim, generator=generator) for _, dim in DIMS),
        torch.ones(1, length, len(DIMS), dtype=torch.bool),
        torch.ones(1, length, dtype=torch.bool),
        torch.randint(0, 3, (1, length), generator=generator),
    )


def build(config: CMATHConfig = SMALL, seed: int = 0) -> CMATH:
    """A model whose biases and missing vectors are not at their zero start."""
    torch.manual_seed(seed)
    model = CMATH(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rsplit(".", 1)[-1] in {"missing", "position", "speaker"}:
                parameter.normal_()
    return model.eval()


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) and not a.isnan().any()


@pytest.mark.parametrize("config", [SMALL, OFFLINE], ids=["live", "offline"])
def test_answers_have_the_promised_shapes(config: CMATHConfig) -> None:
    model, batch = build(config), talk()
    b, n = batch.mask.shape
    logits, centres = model.explain(*tensors(batch))
    assert logits.shape == (b, n, 5)
    assert centres.shape == (b, n, 3, 5)
    assert torch.equal(model(*tensors(batch)), logits)


@pytest.mark.parametrize("names", [("text",), ("audio",), ("text", "audio"), ("visual", "text")])
def test_any_subset_of_modalities_is_a_model(names: tuple[str, ...]) -> None:
    dims = tuple((name, dict(DIMS)[name]) for name in names)
    model = build(replace(SMALL, dims=dims))
    batch = collate(synthetic(2, [dim for _, dim in dims], 5))
    assert model.explain(*tensors(batch))[1].shape[2] == len(names)


def reaches(model: CMATH, length: int, answer: int) -> list[bool]:
    """Which utterances have a gradient from the answer at `answer`."""
    features, presence, mask, speaker = whole(length)
    for rows in features:
        rows.requires_grad_()
    model(features, presence, mask, speaker)[0, answer].square().sum().backward()
    return [
        any(bool(rows.grad is not None and rows.grad[0, i].any()) for rows in features) for i in range(length)
    ]


def test_the_future_does_not_leak() -> None:
    oldest = 6 - (4 - 1) - SMALL.halo  # window, then the halo of its oldest row
    assert reaches(build(), 10, answer=6) == [oldest <= i <= 6 for i in range(10)]


def test_the_offline_variant_sees_both_ways() -> None:
    assert all(reaches(build(OFFLINE), 10, answer=4))


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("config", [SMALL, OFFLINE, replace(SMALL, fusion="experts")])
def test_absent_and_padded_rows_change_no_bit(config: CMATHConfig, garbage: float) -> None:
    model = build(config)
    features, presence, mask, speaker = tensors(talk())
    there = presence & mask[..., None]
    dirty = tuple(
        torch.where(there[..., m, None], x, torch.full_like(x, garbage)) for m, x in enumerate(features)
    )
    clean = model.explain(features, presence, mask, speaker)
    # Presence and speaker of padding are garbage too.
    soiled = model.explain(dirty, presence | ~mask[..., None], mask, torch.where(mask, speaker, -7))
    assert all(same_bits(a[mask], b[mask]) for a, b in zip(clean, soiled, strict=True))


@pytest.mark.parametrize("config", [SMALL, OFFLINE], ids=["live", "offline"])
@pytest.mark.parametrize("at_front", [True, False])
def test_padding_changes_nothing(config: CMATHConfig, at_front: bool) -> None:
    model = build(config)
    features, presence, mask, speaker = whole(7)

    def pad(rows: Tensor) -> Tensor:
        fill = rows.new_ones((1, 3, *rows.shape[2:]))
        return torch.cat([fill, rows] if at_front else [rows, fill], dim=1)

    real = torch.tensor([[False] * 3 + [True] * 7 if at_front else [True] * 7 + [False] * 3])
    alone = model(features, presence, mask, speaker)
    padded = model(tuple(map(pad, features)), pad(presence), real, pad(speaker))
    torch.testing.assert_close(padded[real], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("absent", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_a_modality_may_be_absent_for_a_whole_session(absent: tuple[int, ...]) -> None:
    model, (features, presence, mask, speaker) = build(), whole(6)
    presence[..., list(absent)] = False
    for m in absent:
        features[m].fill_(float("nan"))
    assert torch.isfinite(model(features, presence, mask, speaker)).all()


def test_absence_itself_is_seen() -> None:
    model, (features, presence, mask, speaker) = build(), whole(6)
    full = model(features, presence, mask, speaker)
    presence[0, 3, 1] = False
    assert not torch.equal(model(features, presence, mask, speaker)[0, 3], full[0, 3])


def test_an_absent_row_has_its_missing_vector_and_is_nobodys_key() -> None:
    model, (features, presence, mask, speaker) = build(replace(SMALL, kernel=1)), whole(6)
    presence[0, 2, 1] = False
    before = model(features, presence, mask, speaker)
    with torch.no_grad():
        model.get_parameter("compressors.1.missing").add_(1.0)
    changed = (model(features, presence, mask, speaker) != before)[0].any(dim=-1)
    assert changed.tolist() == [row == 2 for row in range(6)]


def test_order_in_the_batch_is_irrelevant() -> None:
    model, (features, presence, mask, speaker) = build(), tensors(talk(5))
    order = torch.tensor([3, 0, 4, 2, 1])
    straight = model(features, presence, mask, speaker)
    mixed = model(tuple(x[order] for x in features), presence[order], mask[order], speaker[order])
    torch.testing.assert_close(mixed[mask[order]], straight[order][mask[order]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("convolutions", [1, 2])
def test_a_live_window_with_its_halo_equals_the_whole_session(kernel: int, convolutions: int) -> None:
    config = replace(SMALL, kernel=kernel, convolutions=convolutions)
    model, (features, presence, mask, speaker) = build(config), whole(14)
    presence[0, ::3, 1] = False
    session = model(features, presence, mask, speaker)
    rows = 4 + config.halo
    for newest in range(14):
        cut = slice(max(0, newest + 1 - rows), newest + 1)
        step = model(tuple(x[:, cut] for x in features), presence[:, cut], mask[:, cut], speaker[:, cut])
        torch.testing.assert_close(step[0, -1], session[0, newest], rtol=1e-5, atol=1e-6)


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    model, inputs = build(), tensors(talk())
    assert torch.equal(model(*inputs), model(*inputs))
    model.train()
    first, second = model.training_pass(*inputs), model.training_pass(*inputs)
    assert not torch.equal(first.logits, second.logits)


def test_speakers_count_only_as_same_or_other() -> None:
    model, (features, presence, mask, speaker) = build(), whole(8)
    speaker = torch.tensor([[0, 1, 0, 2, 1, 0, 2, 1]])
    renamed = torch.tensor([9, 4, 0])[speaker]
    assert torch.equal(model(features, presence, mask, speaker), model(features, presence, mask, renamed))
    alone = model(features, presence, mask, torch.zeros_like(speaker))
    assert not torch.equal(model(features, presence, mask, speaker), alone)


def learn(model: CMATH, batch: Batch, steps: int, weights: LossWeights) -> list[tuple[float, float, float]]:
    """(label, reconstruction, variational) losses of some steps on one batch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    labels, path = torch.from_numpy(batch.label), []
    model.train()
    for _ in range(steps):
        parts = losses(model.training_pass(*tensors(batch)), labels, weights)
        optimiser.zero_grad()
        parts.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        path.append((parts.label.item(), parts.reconstruction.item(), parts.variational.item()))
    return path


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart() -> None:
    batch = talk(4)
    model = build(replace(SMALL, dropout=0.0))
    path = learn(model, batch, 80, LossWeights(reconstruction=1.0, temperature=1.0))
    assert path[-1][0] < 0.05  # label
    assert path[0][1] > path[-1][1] < 1.0  # L_rec: better than the mean of the data
    assert path[-1][2] > 0.01  # L_var: the posterior has not collapsed onto the prior
    model.eval()
    right = model(*tensors(batch)).argmax(-1).numpy() == batch.label
    assert right[batch.mask].mean() > 0.95


def test_losses_do_not_see_padding_absence_or_unlabelled_rows() -> None:
    batch = talk()
    model = build(replace(SMALL, sample=False))
    features, presence, mask, speaker = tensors(batch)
    there = presence & mask[..., None]
    dirty = tuple(x.masked_fill(~there[..., m, None], float("nan")) for m, x in enumerate(features))
    labels = torch.from_numpy(batch.label)
    clean = losses(model.training_pass(features, presence, mask, speaker), labels, LossWeights())
    soiled = losses(model.training_pass(dirty, presence, mask, speaker), labels, LossWeights())
    assert all(torch.equal(a, b) for a, b in zip(clean, soiled, strict=True))
    nothing = losses(
        model.training_pass(features, presence, mask, speaker), torch.full_like(labels, -1), LossWeights()
    )
    assert nothing.label.item() == nothing.centre_labels.item() == 0.0


def test_a_nan_in_an_absent_row_leaves_every_gradient_finite() -> None:
    batch, model = talk(), build()
    features, presence, mask, speaker = tensors(batch)
    dirty = tuple(x.masked_fill(~presence[..., m, None], float("nan")) for m, x in enumerate(features))
    out = model.training_pass(dirty, presence, mask, speaker)
    losses(out, torch.from_numpy(batch.label), LossWeights()).total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("centre_labels", "centre_labels"),
        ("centre_answers", "centre_answers"),
        ("centre_posteriors", "centre_posteriors"),
        ("reconstruction", "reconstruction"),
        ("variational", "variational"),
    ],
)
def test_each_loss_can_be_switched_off(part: str, name: str) -> None:
    model = build(replace(SMALL, sample=False))
    batch = talk()
    out, labels = model.training_pass(*tensors(batch)), torch.from_numpy(batch.label)
    weights = LossWeights()
    whole_, less = losses(out, labels, weights), losses(out, labels, replace(weights, **{part: 0.0}))
    value = getattr(whole_, name).item()
    scale = getattr(weights, part)
    assert value > 0.0
    assert whole_.total.item() - less.total.item() == pytest.approx(scale * value, rel=1e-3)


def test_gaussian_divergence_of_equals_is_zero_and_matches_torch() -> None:
    mean, log_variance = torch.randn(4, 6), torch.randn(4, 6)
    assert torch.equal(gaussian_kl(mean, log_variance, mean, log_variance), torch.zeros(4))
    normal = torch.distributions.Normal
    known = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).mean(
        -1
    )
    zero = torch.zeros_like(mean)
    torch.testing.assert_close(gaussian_kl(mean, log_variance, zero, zero), known)


@pytest.mark.slow
def test_the_exported_graph_has_no_decoder_and_takes_any_size() -> None:
    model = CMATH(SMALL, decoder=False).eval()
    model.load_state_dict({k: v for k, v in build().state_dict().items() if not k.startswith("rebuilders.")})
    b, n = torch.export.Dim("b", min=1, max=64), torch.export.Dim("n", min=2, max=128)
    axes = {0: b, 1: n}
    program = torch.export.export(
        model, tensors(talk()), dynamic_shapes=((axes,) * len(DIMS), axes, axes, axes), strict=False
    )
    assert not any("rebuilders" in name for name in program.state_dict)
    features, presence, mask, speaker = whole(20)
    torch.testing.assert_close(
        program.module()(features, presence, mask, speaker), model(features, presence, mask, speaker)
    )
    with pytest.raises(RuntimeError, match="decoder"):
        model.training_pass(features, presence, mask, speaker)


Change = Callable[[CMATHConfig], CMATHConfig]
SWITCHES: dict[str, Change] = {
    "kernel": lambda c: replace(c, kernel=1),
    "convolutions": lambda c: replace(c, convolutions=1),
    "layers": lambda c: replace(c, layers=2),
    "bidirectional": lambda c: replace(c, causal=False),
    "window": lambda c: replace(c, window=None),
    "joint attention": lambda c: replace(c, attention="joint"),
    "symmetric attention": lambda c: replace(c, attention="symmetric"),
    "text-centred only": lambda c: replace(c, centres=("text",)),
    "experts": lambda c: replace(c, fusion="experts"),
    "concatenation": lambda c: replace(c, fusion="concatenation"),
    "residual": lambda c: replace(c, residual=True),
}


@pytest.mark.parametrize("change", SWITCHES.values(), ids=SWITCHES.keys())
def test_every_switch_changes_the_answer_and_still_learns(change: Change) -> None:
    batch, config = talk(), change(SMALL)
    model = build(config)
    assert not torch.equal(model(*tensors(batch)), build()(*tensors(batch)))
    path = learn(model, batch, 3, LossWeights())
    assert np.isfinite(path).all()
    assert (path[0][2] == 0.0) == (config.fusion == "concatenation")


def test_symmetric_attention_shares_one_stack_and_text_centred_has_one_centre() -> None:
    assert len(build(replace(SMALL, attention="symmetric")).stacks) == 1
    assert len(build().stacks) == 3
    assert build(replace(SMALL, centres=("text",))).explain(*whole(5))[1].shape[2] == 1


def test_without_sampling_training_uses_the_mean() -> None:
    inputs = tensors(talk())
    fixed, free = build(replace(SMALL, sample=False)), build()
    assert torch.equal(fixed.training_pass(*inputs).logits, fixed(*inputs))
    assert not torch.equal(free.training_pass(*inputs).logits, free(*inputs))


def test_experts_ignore_the_posterior_of_an_absent_modality() -> None:
    model, (features, presence, mask, speaker) = build(replace(SMALL, fusion="experts")), whole(5)
    presence[..., 1] = False
    before = model(features, presence, mask, speaker)
    with torch.no_grad():
        for parameter in model.experts[1].parameters():
            parameter.normal_()
    assert torch.equal(model(features, presence, mask, speaker), before)


@pytest.mark.parametrize(
    "change",
    [
        {"dims": ()},
        {"dims": (("text", 4), ("text", 5))},
        {"heads": 3},
        {"kernel": 2},
        {"layers": 0},
        {"window": 0},
        {"centres": ("smell",)},
        {"fusion": "experts", "residual": True},
        {"fusion": "magic"},
        {"attention": "none"},
    ],
)
def test_a_config_that_defines_no_model_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="."):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_half_precision_stays_close() -> None:
    model, (features, presence, mask, speaker) = build(), whole(9)
    full = model(features, presence, mask, speaker)
    low = model.bfloat16()(tuple(x.bfloat16() for x in features), presence, mask, speaker)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), full, rtol=0.1, atol=0.1)
