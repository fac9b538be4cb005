"""CMATH: cross-modality augmented transformer with hierarchical variational distillation.

An open reconstruction from the published description (Zhu et al., arXiv 2411.10060): the authors released no
code, and what the description leaves open is our definition. R-numbers in the comments refer to it.
Knows tensors only. Reads straight down: config, blocks, model.
Letters: B dialogues, N utterances, M modalities, D_m width of modality m's features, d common width, h heads,
A centres (modalities that take the centre, usually M), C classes, K convolutions a modality, W window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DISTANCE_LIMIT = 32  # utterances further apart than this share one positional bias
OUTLIER_LIMIT = 8.0  # deviations; a live microphone leaves the training range, and must not drown the rest

PerModality = tuple[Tensor, ...]  # M tensors, in the order of `CMATHConfig.dims`
Attending = Literal["asymmetric", "joint", "symmetric"]
Fusing = Literal["variational", "experts", "concatenation"]


@dataclass(frozen=True, slots=True)
class CMATHConfig:
    """All that fixes a model's shapes and function. Raises ValueError for what defines no model."""

    dims: tuple[tuple[str, int], ...]  # (modality, D_m) in the order `features` come in
    classes: int = 7
    width: int = 256  # d
    convolutions: int = 2  # K; 0 is not offered: R2 is what brings D_m to d
    kernel: int = 3  # along the utterance axis, odd; 1 = every utterance compressed alone
    layers: int = 1  # L; above 1 a windowed step no longer equals the full pass
    heads: int = 8
    dropout: float = 0.3
    input_dropout: float = 0.0  # on the z-scored features
    causal: bool = True  # False: every utterance sees later ones too (offline)
    window: int | None = 16  # W utterances an utterance sees, itself included; None = the whole dialogue
    attention: Attending = "asymmetric"
    # asymmetric: R8-R11 · joint: the centre queries the rows of all modalities at once
    # symmetric: joint, with one stack shared by all centres (ablation: nobody is special)
    centres: tuple[str, ...] = ()  # modalities that take the centre, as ("text",); empty = all
    fusion: Fusing = "variational"
    # variational: R14-R16 · concatenation: G = W_G h, no latent variable (ablation)
    # experts: product of the present modalities' R15b posteriors and N(0, I)
    sample: bool = True  # False: sigma = 0, training uses the mean too (ablation)
    residual: bool = False  # G = W_G z + h; variational fusion only

    def __post_init__(self) -> None:
        if not self.dims or len(set(self.names)) != len(self.dims):
            raise ValueError("dims must name at least one modality, each once")
        if self.attention not in get_args(Attending) or self.fusion not in get_args(Fusing):
            raise ValueError(f"attention is one of {get_args(Attending)}, fusion of {get_args(Fusing)}")
        smallest = min(self.convolutions, self.layers, 1 if self.window is None else self.window)
        if smallest < 1 or self.width % self.heads or self.kernel % 2 == 0:
            raise ValueError("heads must divide width, kernel be odd, convolutions, layers, window be > 0")
        if not set(self.centres) <= set(self.names):
            raise ValueError("centres must be modalities of dims")
        if self.residual and self.fusion != "variational":
            raise ValueError("residual needs the variational fusion")

    @property
    def names(self) -> tuple[str, ...]:
        """The M modality names, in order."""
        return tuple(name for name, _ in self.dims)

    @property
    def centre_indices(self) -> tuple[int, ...]:
        """The A modalities that take the centre, as positions in `dims`."""
        return tuple(i for i, name in enumerate(self.names) if not self.centres or name in self.centres)

    @property
    def halo(self) -> int:
        """Raw rows before the window that its oldest row's convolutions look back on: K(k-1)."""
        return self.convolutions * (self.kernel - 1)

    def channels(self, dim: int) -> list[int]:
        """[D_m, C_1, .., d] of a modality: even steps."""
        return [dim + (self.width - dim) * k // self.convolutions for k in range(self.convolutions + 1)]


class Evidence(NamedTuple):
    """Who may look at whom, computed once a pass and shared by all attention blocks."""

    near: Tensor  # [N, N] bool, row may look at column: causal, within the window
    same_speaker: Tensor  # [B, N, N] bool
    distance: Tensor  # [N, N] int64, clipped row - column, shifted to be an index
    presence: Tensor  # [B, N, M] bool, False on padded rows too


class TrainingOutput(NamedTuple):
    """What the losses need (R6, R18-R21). Rows that are padded or absent hold finite nonsense."""

    logits: Tensor  # [B, N, C]
    centre_logits: Tensor  # [B, N, A, C], R19's p_m before the softmax
    inputs: PerModality  # M x [B, N, D_m], z-scored, before the missing vector
    rebuilt: PerModality  # M x [B, N, D_m]
    mean: Tensor  # [B, N, d], mu
    log_variance: Tensor | None  # [B, N, d], log s2; None: concatenation has no distribution
    centre_mean: Tensor  # [B, N, A, d], mu_m
    centre_log_variance: Tensor  # [B, N, A, d]
    presence: Tensor  # [B, N, M] bool, False on padded rows
    centre_presence: Tensor  # [B, N, A] bool
    mask: Tensor  # [B, N] bool


class UtteranceConv(nn.Module):
    """Convolution along the utterance axis that keeps N, left-padded where causal."""

    def __init__(self, config: CMATHConfig, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inside, outside, config.kernel)
        self.pad = (config.kernel - 1, 0) if config.causal else (config.kernel // 2, config.kernel // 2)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, N, inside] -> [B, N, outside]."""
        padded = F.pad(rows.transpose(1, 2), self.pad)  # [B, inside, N + k - 1]
        out: Tensor = self.conv(padded)  # [B, outside, N]
        return out.transpose(1, 2)


class Compressor(nn.Module):
    """R1-R3, the way down: raw features of one modality to their compressed representation."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: CMATHConfig, dim: int) -> None:
        super().__init__()
        channels = config.channels(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.missing = nn.Parameter(torch.zeros(dim))
        self.dropout = nn.Dropout(config.input_dropout)
        self.convs = nn.ModuleList(UtteranceConv(config, a, b) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(nn.LayerNorm(b) for b in channels[1:])

    def forward(self, raw: Tensor, present: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Raw features -> z-scored [B, N, D_m], and E^0 .. E^K [B, N, C_k], the last of which is Z_m."""
        real = mask[..., None]  # [B, N, 1]
        clean = torch.where(present[..., None], raw, self.mean)  # before any arithmetic: 0 * NaN is NaN
        scored = ((clean - self.mean) / self.std).clamp(-OUTLIER_LIMIT, OUTLIER_LIMIT)
        rows = torch.where(present[..., None], self.dropout(scored), self.missing)  # R1
        levels = [rows * real]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            levels.append(F.gelu(norm(conv(levels[-1]))) * real)  # R2: re-masked, so padding equals nothing
        return scored, levels


class Rebuilder(nn.Module):
    """R4-R5, the way up: only training needs it."""

    def __init__(self, config: CMATHConfig, dim: int) -> None:
        super().__init__()
        channels = config.channels(dim)
        self.convs = nn.ModuleList(UtteranceConv(config, b, a) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(nn.LayerNorm(a) for a in channels[1:-1])
        self.skips = nn.ModuleList(nn.Linear(a, a, bias=False) for a in channels[1:-1])  # s_k A_k in one

    def forward(self, levels: list[Tensor]) -> Tensor:
        """E^0 .. E^K -> X^_m [B, N, D_m]."""
        rows = levels[-1]
        for k in range(len(self.norms), 0, -1):  # R4: inner skips only
            rows = F.gelu(self.norms[k - 1](self.convs[k](rows))) + self.skips[k - 1](levels[k])
        rebuilt: Tensor = self.convs[0](rows)  # R5: linear, and never a skip from E^0
        return rebuilt


class Attention(nn.Module):
    """Multi-head attention over utterances, with R7's position and speaker biases on the logits."""

    def __init__(self, config: CMATHConfig) -> None:
        super().__init__()
        d, self.heads = config.width, config.heads
        self.query = nn.Linear(d, d)
        self.key_value = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.position = nn.Parameter(torch.zeros(self.heads, 2 * DISTANCE_LIMIT + 1))
        self.speaker = nn.Parameter(torch.zeros(self.heads, 1, 1))  # other = 0: softmax sees differences only
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, asking: Tensor, asked: list[Tensor], modalities: tuple[int, ...], seen: Evidence
    ) -> Tensor:
        """asking [B, N, d] queries the rows of `asked`, each [B, N, d] of its modality -> [B, N, d].

        Zero where a row sees no present key (R9): softmax over nothing is NaN, or uniform over absent rows.
        """
        b, n, d = asking.shape
        query = self.query(asking).view(b, n, self.heads, -1).transpose(1, 2)  # [B, h, N, d/h]
        rows = torch.cat(asked, dim=1)  # [B, S, d], S = N * len(asked)
        pairs = self.key_value(rows).view(b, rows.shape[1], 2, self.heads, -1)  # [B, S, 2, h, d/h]
        key, value = pairs.permute(2, 0, 3, 1, 4)  # [B, h, S, d/h] each
        keys = [seen.near & seen.presence[:, None, :, m] for m in modalities]
        allowed = torch.cat(keys, dim=2)  # [B, N, S]
        bias = self.position[:, seen.distance] + self.speaker * seen.same_speaker[:, None]  # [B, h, N, N]
        bias = bias.repeat(1, 1, 1, len(asked))  # [B, h, N, S]
        logits = query @ key.transpose(2, 3) / math.sqrt(d // self.heads) + bias  # [B, h, N, S]
        # Finite, so that a row without keys stays a number; in float32 whatever the weights are.
        logits = logits.float().masked_fill(~allowed[:, None], torch.finfo(torch.float32).min)
        weights = self.dropout(logits.softmax(dim=-1).to(value.dtype))
        mixed = self.out((weights @ value).transpose(1, 2).reshape(b, n, d))  # [B, N, d]
        return torch.where(allowed.any(dim=2, keepdim=True), mixed, torch.zeros_like(mixed))


class CrossModalLayer(nn.Module):
    """R8-R12: one layer of the stack of one centre."""

    def __init__(self, config: CMATHConfig) -> None:
        super().__init__()
        d, p = config.width, config.dropout
        auxiliaries = len(config.dims) - 1 if config.attention == "asymmetric" else 0
        self.attend_self = Attention(config)
        self.attend_others = nn.ModuleList(Attention(config) for _ in range(auxiliaries))
        self.gates = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(auxiliaries))
        self.norm_self = nn.LayerNorm(d)
        self.norm_query = nn.LayerNorm(d)
        self.norm_others = nn.ModuleList(nn.LayerNorm(d) for _ in range(len(config.dims) - 1))
        self.norm_forward = nn.LayerNorm(d)
        self.forward_net = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(p), nn.Linear(2 * d, d))
        self.dropout = nn.Dropout(p)

    def forward(self, centre: Tensor, index: int, compressed: list[Tensor], seen: Evidence) -> Tensor:
        """H_c [B, N, d], c = index, and Z of all modalities -> H_c [B, N, d]."""
        others = tuple(m for m in range(len(compressed)) if m != index)
        normed = self.norm_self(centre)
        aux = [norm(compressed[m]) for norm, m in zip(self.norm_others, others, strict=True)]
        if not self.attend_others:  # joint, symmetric, or a single modality
            state = centre + self.dropout(self.attend_self(normed, [normed, *aux], (index, *others), seen))
        else:
            state = centre + self.dropout(self.attend_self(normed, [normed], (index,), seen))  # R8
            query = self.norm_query(state)
            moved = state
            for attend, gate, rows, m in zip(self.attend_others, self.gates, aux, others, strict=True):
                answer = attend(query, [rows], (m,), seen)  # R9
                trust = torch.sigmoid(gate(torch.cat([state, answer], dim=-1)))  # R10
                moved = moved + trust * self.dropout(answer)  # R11
            state = moved
        out: Tensor = state + self.dropout(self.forward_net(self.norm_forward(state)))  # R12
        return out


class CrossModalStack(nn.Module):
    """R7-R13 of one centre."""

    def __init__(self, config: CMATHConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossModalLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, index: int, compressed: list[Tensor], seen: Evidence) -> Tensor:
        """Z of all modalities, M x [B, N, d], and which of them is the centre -> F_c [B, N, d]."""
        rows = compressed[index]  # R7
        for layer in self.layers:
            rows = layer(rows, index, compressed, seen)
        out: Tensor = self.norm(rows)  # R13
        return out


class Gaussian(nn.Module):
    """R15: a diagonal normal distribution from a row."""

    def __init__(self, inside: int, d: int) -> None:
        super().__init__()
        self.mean = nn.Linear(inside, d)
        self.log_variance = nn.Linear(inside, d)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[.., inside] -> mean and log variance, [.., d] each."""
        return self.mean(rows), self.log_variance(rows).clamp(-8.0, 8.0)


class CMATH(nn.Module):
    """The model. `forward` and `explain` are inference; `training_pass` is what the losses are made of."""

    def __init__(self, config: CMATHConfig, *, decoder: bool = True) -> None:
        """`decoder=False` leaves out the half that only the reconstruction loss needs."""
        super().__init__()
        self.config = config
        d, centres = config.width, len(config.centre_indices)
        stacks = 1 if config.attention == "symmetric" else centres
        self.compressors = nn.ModuleList(Compressor(config, dim) for _, dim in config.dims)
        self.rebuilders = nn.ModuleList(Rebuilder(config, dim) for _, dim in config.dims) if decoder else None
        self.stacks = nn.ModuleList(CrossModalStack(config) for _ in range(stacks))
        self.gather = nn.Linear(centres * d, d)  # W_h
        self.joint = Gaussian(d, d)
        self.experts = nn.ModuleList(Gaussian(d, d) for _ in range(centres))
        self.coarse = nn.Linear(d, d)  # W_G
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(d, config.classes))  # W_y
        self.centre_heads = nn.ModuleList(  # W_m
            nn.Sequential(nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, config.classes))
            for _ in range(centres)
        )

    def forward(self, features: PerModality, presence: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """M x [B, N, D_m], [B, N, M] bool, [B, N] bool, [B, N] int64 -> logits [B, N, C].

        Absent and padded rows may hold anything, NaN included. In conversation order, padding at either end.
        """
        return self.explain(features, presence, mask, speaker)[0]

    def explain(
        self, features: PerModality, presence: Tensor, mask: Tensor, speaker: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, and what each centre alone would say: logits [B, N, C], [B, N, A, C] (R19).

        A centre's logits mean something only where its modality is present.
        """
        seen = self._evidence(presence, mask, speaker)
        _, levels = self._compress(features, seen, mask)
        fine = self._fine([rows[-1] for rows in levels], seen)
        mean, _, hidden = self.fuse(fine, seen.presence)
        return self.answer(mean, hidden), self.centre_logits(fine)

    def training_pass(
        self, features: PerModality, presence: Tensor, mask: Tensor, speaker: Tensor
    ) -> TrainingOutput:
        """As `forward`, sampling z, with all intermediate results; needs the decoder."""
        if self.rebuilders is None:
            raise RuntimeError("this model was built without its decoder: it can answer, not learn")
        seen = self._evidence(presence, mask, speaker)
        scored, levels = self._compress(features, seen, mask)
        fine = self._fine([rows[-1] for rows in levels], seen)
        mean, log_variance, hidden = self.fuse(fine, seen.presence)
        latent = mean
        if self.config.sample and log_variance is not None:
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)  # R16
        experts = [expert(rows) for expert, rows in zip(self.experts, fine, strict=True)]
        return TrainingOutput(
            logits=self.answer(latent, hidden),
            centre_logits=self.centre_logits(fine),
            inputs=scored,
            rebuilt=tuple(up(level) for up, level in zip(self.rebuilders, levels, strict=True)),
            mean=mean,
            log_variance=log_variance,
            centre_mean=torch.stack([mu for mu, _ in experts], dim=2),
            centre_log_variance=torch.stack([s2 for _, s2 in experts], dim=2),
            presence=seen.presence,
            centre_presence=seen.presence[..., list(self.config.centre_indices)],
            mask=mask,
        )

    def _evidence(self, presence: Tensor, mask: Tensor, speaker: Tensor) -> Evidence:
        place = torch.arange(mask.shape[1], device=mask.device)  # [N]
        distance = place[:, None] - place[None, :]  # [N, N], positive = earlier
        reach = self.config.window or mask.shape[1]
        near = (distance < reach) & (distance > (-1 if self.config.causal else -reach))
        return Evidence(
            near=near,
            same_speaker=speaker[:, :, None] == speaker[:, None, :],
            distance=distance.clamp(-DISTANCE_LIMIT, DISTANCE_LIMIT) + DISTANCE_LIMIT,
            presence=presence & mask[..., None],
        )

    def _compress(
        self, features: PerModality, seen: Evidence, mask: Tensor
    ) -> tuple[PerModality, list[list[Tensor]]]:
        """M x z-scored [B, N, D_m], and M x E^0 .. E^K."""
        both = [
            compressor(raw, seen.presence[..., m], mask)
            for m, (compressor, raw) in enumerate(zip(self.compressors, features, strict=True))
        ]
        return tuple(scored for scored, _ in both), [levels for _, levels in both]

    def _fine(self, compressed: list[Tensor], seen: Evidence) -> list[Tensor]:
        """F_c [B, N, d] of every centre."""
        return [
            self.stacks[place % len(self.stacks)](index, compressed, seen)
            for place, index in enumerate(self.config.centre_indices)
        ]

    def fuse(self, fine: list[Tensor], presence: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """R14-R15, F_c to mu, log s2, h, [.., d] each; concatenation has h for mu, and no variance."""
        hidden = F.gelu(self.gather(torch.cat(fine, dim=-1)))  # R14
        if self.config.fusion == "concatenation":
            return hidden, None, hidden
        if self.config.fusion == "variational":
            return *self.joint(hidden), hidden  # R15
        precision, weighted = torch.ones_like(hidden), torch.zeros_like(hidden)  # the prior N(0, I)
        for expert, rows, index in zip(self.experts, fine, self.config.centre_indices, strict=True):
            mean, log_variance = expert(rows)  # R15b
            trust = torch.exp(-log_variance) * presence[..., index, None]  # an absent modality has no say
            precision, weighted = precision + trust, weighted + trust * mean
        return weighted / precision, -torch.log(precision), hidden

    def answer(self, latent: Tensor, hidden: Tensor) -> Tensor:
        """[.., d] each -> logits [.., C], by R17."""
        coarse = self.coarse(latent)
        logits: Tensor = self.head(coarse + hidden if self.config.residual else coarse)
        return logits

    def centre_logits(self, fine: list[Tensor]) -> Tensor:
        """A x [.., d] -> [.., A, C], R19."""
        return torch.stack([head(rows) for head, rows in zip(self.centre_heads, fine, strict=True)], dim=-2)
