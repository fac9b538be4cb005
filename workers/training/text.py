"""Training of the text adapter: `python -m workers.training.text --data DIR --out DIR`.

The sentence encoder learns, by low-rank changes to its linear layers, to tell emotions apart in single
utterances; what came before is the business of whoever reads the embeddings. Each corpus answers in its own
labels through its own linear head. The heads are fitted on the plain embeddings first and then stay as they
are: the encoder moves towards them, so that encoders trained on different folds speak one language.

An encoder is surer about utterances it was fitted on than it will ever be again. So what follows it should
learn from `embedded.npz`, where an encoder that never saw its dialogue embedded each training utterance.
Letters: B utterances, T tokens, D numbers of an embedding, C classes of a corpus.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as fn

from realtime.errors import CmathStreamError, SettingsError
from realtime.settings import load
from workers.text import DEFAULT_ENCODER, load_encoder
from workers.text_adapter import AdapterMeta, apply, fingerprint, save, transformer
from workers.text_adapter import read as read_adapter

MELD7 = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """One training run; `configs/train-text.toml` holds its differences from the defaults."""

    seed: int = 1
    train: tuple[str, ...] = ("meld/train.jsonl",)  # below the data folder; the first part names the corpus
    shares: tuple[float, ...] = (1.0,)  # weight of each of them in the loss
    validation: str = "meld/dev.jsonl"
    licence: str = ""
    data_sources: tuple[str, ...] = ()
    rank: int = 32
    layers: int = 6  # the last ones of the encoder are changed
    epochs: int = 3
    kept: int = 3  # epochs after which training ends, the schedule being made for `epochs`
    batch: int = 32  # utterances
    learning_rate: float = 1e-3  # peak
    weight_decay: float = 0.01
    dropout: float = 0.1  # before the low-rank layers and before the heads
    warm_up: float = 0.1  # share of the steps in which the rate rises
    class_weights: float = 0.25  # power of the inverse class frequency
    label_smoothing: float = 0.1
    probe_penalty: float = 1e-3  # on the squares of the heads
    max_tokens: int = 64
    folds: int = 2  # of the out-of-fold embeddings; 0 = none are made
    bfloat16: bool = True  # forward passes of training

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.train):
            raise ValueError("shares must be one for each file of train")
        if min(self.rank, self.layers, self.kept, self.batch) < 1 or self.kept > self.epochs:
            raise ValueError("rank, layers, batch at least 1, kept between 1 and epochs")


@dataclass(frozen=True, slots=True)
class Utterances:
    """Written utterances, n of them, in the order of the files."""

    text: list[str]
    corpus: NDArray[np.int64]  # [n], place in `TextRecipe.train`
    label: NDArray[np.int64]  # [n], index into the corpus's labels
    dialogue: list[str]
    utterance: NDArray[np.int64]  # [n], place in the dialogue
    labels: tuple[tuple[str, ...], ...]  # a corpus


def read(folder: Path, names: Sequence[str]) -> Utterances:
    """Read dialogue JSONL, each file with the labels that occur in it, MELD's in MELD's order.

    Raises SettingsError where a file cannot be read as one.
    """
    text, corpus, emotion, dialogue, utterance = [], [], [], [], []
    for c, name in enumerate(names):
        try:
            lines = (folder / name).read_text("utf-8").splitlines()
            for record in map(json.loads, lines):
                for place, row in enumerate(record["utterances"]):
                    text.append(str(row["text"]))
                    corpus.append(c)
                    emotion.append(str(row["emotion"]))
                    dialogue.append(f"{name}:{record['dialogue']}")
                    utterance.append(place)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{folder / name}: not dialogues: {error}") from error
    labels = []
    for c in range(len(names)):
        found = {e for e, k in zip(emotion, corpus, strict=True) if k == c}
        labels.append(MELD7 if found <= set(MELD7) else tuple(sorted(found)))
    index = [labels[c].index(e) for e, c in zip(emotion, corpus, strict=True)]
    return Utterances(text, np.array(corpus), np.array(index), dialogue, np.array(utterance), tuple(labels))


def folds_of(data: Utterances, folds: int, seed: int) -> NDArray[np.int64]:
    """[n] fold of each utterance; dialogues that share a line of five words or more share a fold.

    Two corpora may hold the same scene: to leave one copy in is to leave the label in.
    """
    parent: dict[str, str] = {name: name for name in data.dialogue}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for name, text in zip(data.dialogue, data.text, strict=True):
        words = "".join(c for c in text.lower() if c.isalnum() or c.isspace()).split()
        if len(words) >= 5:
            parent[root(name)] = root(first.setdefault(" ".join(words), name))
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(data.dialogue):
        groups.setdefault(root(name), []).append(row)
    result, filled = np.zeros(len(data.text), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    shuffled = [list(groups.values())[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    for rows in sorted(shuffled, key=len, reverse=True):  # stable: large groups first, each to the emptiest
        result[rows] = filled.argmin()
        filled[filled.argmin()] += len(rows)
    return result


class LowRank(nn.Module):
    """A frozen linear layer and what is learned on top of it."""

    def __init__(self, base: nn.Linear, rank: int, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, rows: Tensor) -> Tensor:
        """[.., in] -> [.., out]."""
        out: Tensor = self.base(rows)
        return out + fn.linear(fn.linear(self.dropout(rows), self.down), self.up)


class Student(nn.Module):
    """The encoder with low-rank layers in its last blocks; the heads are fixed."""

    def __init__(self, encoder: Any, heads: Sequence[tuple[Tensor, Tensor]], recipe: TextRecipe) -> None:
        super().__init__()
        self.tokenizer = encoder.tokenizer
        self.recipe = recipe
        self.inner = copy.deepcopy(transformer(encoder)).requires_grad_(False)
        self.dropout = nn.Dropout(recipe.dropout)
        self.heads = heads
        blocks: Any = self.inner.get_submodule("encoder.layer")
        self.changed: dict[str, LowRank] = {}
        for place in range(len(blocks) - recipe.layers, len(blocks)):
            for name, layer in list(blocks[place].named_modules()):
                if isinstance(layer, nn.Linear):
                    above, _, last = name.rpartition(".")
                    low = LowRank(layer, recipe.rank, recipe.dropout)
                    setattr(blocks[place].get_submodule(above), last, low)
                    self.changed[f"encoder.layer.{place}.{name}"] = low

    def forward(self, texts: list[str]) -> Tensor:
        """B texts -> [B, D], unit length: the mean over tokens, as the encoder was made."""
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.recipe.max_tokens, return_tensors="pt"
        )
        states = self.inner(**tokens).last_hidden_state.float()  # [B, T, D]
        real = tokens["attention_mask"][..., None].float()
        return fn.normalize((states * real).sum(1) / real.sum(1), dim=1)

    def loss(self, texts: list[str], corpus: Tensor, label: Tensor, weight: Sequence[Tensor]) -> Tensor:
        """Cross-entropy of a batch, each utterance by its corpus's head; weight [C] a corpus."""
        rows = self.dropout(self(texts))
        total: Tensor = rows.new_zeros(())
        for c, head in enumerate(self.heads):
            mine = corpus == c
            total = total + fn.cross_entropy(
                logits(rows[mine], head),
                label[mine],
                weight[c],
                reduction="sum",
                label_smoothing=self.recipe.label_smoothing,
            )
        return total / len(texts)

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """What was learned, by layer, as `text_adapter.save` takes it."""
        return {
            f"{name}.{key}": getattr(low, key).detach().numpy()
            for name, low in self.changed.items()
            for key in ("up", "down")
        }


def logits(rows: Tensor, head: tuple[Tensor, Tensor]) -> Tensor:
    """[B, D] unit length, ([C, D], [C]) -> [B, C]; a number of an embedding has variance 1 for the head."""
    return fn.linear(rows * math.sqrt(rows.shape[1]), *head)


def fit_head(
    rows: Tensor, label: Tensor, weight: Tensor, classes: int, penalty: float
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression of [n, D] embeddings: ([C, D], [C])."""
    matrix = torch.zeros(classes, rows.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([matrix, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = fn.cross_entropy(logits(rows, (matrix, bias)), label, weight)
        loss = loss + penalty * matrix.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return matrix.detach(), bias.detach()


def class_weight(label: NDArray[np.int64], classes: int, power: float, share: float) -> Tensor:
    """[C] inverse class frequency to a power, mean `share` over the data."""
    frequency = np.maximum(np.bincount(label, minlength=classes) / max(len(label), 1), 1e-3)
    weight = frequency**-power
    return torch.from_numpy((share * weight / (weight @ frequency)).astype(np.float32))


def batches(texts: Sequence[str], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of an epoch, batch by batch, like lengths together: padding is most of the work otherwise."""
    length = np.array([len(text) for text in texts])
    pools = np.array_split(rng.permutation(len(texts)), max(1, len(texts) // (size * 32)))
    cuts = [pool[np.argsort(length[pool], kind="stable")] for pool in pools]
    pieces = [pool[start : start + size] for pool in cuts for start in range(0, len(pool), size)]
    yield from (pieces[i] for i in rng.permutation(len(pieces)))


def fit(
    student: Student,
    data: Utterances,
    rows: NDArray[np.int64],
    recipe: TextRecipe,
    step_done: Callable[[], None],
    epoch_done: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train `student` in place on these rows of `data`. Everything random comes from the recipe's seed."""
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    weight = [
        class_weight(data.label[rows][data.corpus[rows] == c], len(names), recipe.class_weights, share)
        for c, (names, share) in enumerate(zip(data.labels, recipe.shares, strict=True))
    ]
    learned = [value for value in student.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * steps_an_epoch(len(rows), recipe)
    step = 0
    for epoch in range(recipe.kept):
        student.train()
        for chosen in batches([data.text[i] for i in rows], recipe.batch, rng):
            done = step / steps
            rise = min(1.0, (step + 1) / max(1.0, recipe.warm_up * steps))
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * min(rise, 0.5 * (1.0 + math.cos(math.pi * done)))
            batch = rows[chosen]
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                loss = student.loss(
                    [data.text[i] for i in batch],
                    torch.from_numpy(data.corpus[batch]),
                    torch.from_numpy(data.label[batch]),
                    weight,
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
            step += 1
            step_done()
        student.eval()
        epoch_done(epoch)


def steps_an_epoch(rows: int, recipe: TextRecipe) -> int:
    """How many batches `batches` gives."""
    pools = np.array_split(np.arange(rows), max(1, rows // (recipe.batch * 32)))
    return sum(math.ceil(len(pool) / recipe.batch) for pool in pools)


def embed(encoder: Any, texts: list[str]) -> NDArray[np.float32]:
    """[n, D] unit length, as the text extractor computes it."""
    rows = encoder.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(rows, dtype=np.float32)


def figures(said: NDArray[np.int64], label: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, weighted and macro F1, and a class's F1 and recall, shares of 1."""
    hits = np.bincount(label[said == label], minlength=len(names))
    support, answers = np.bincount(label, minlength=len(names)), np.bincount(said, minlength=len(names))
    f1 = 2.0 * hits / np.maximum(support + answers, 1)
    recall = hits / np.maximum(support, 1)
    return {
        "n": len(label),
        "accuracy": round(float(hits.sum() / len(label)), 4),
        "weighted_f1": round(float(f1 @ support / len(label)), 4),
        "macro_f1": round(float(f1.mean()), 4),
        "per_class": {
            name: {"f1": round(float(f1[c]), 4), "recall": round(float(recall[c]), 4), "n": int(support[c])}
            for c, name in enumerate(names)
        },
    }


def train(recipe: TextRecipe, data_dir: Path, out_dir: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Train the adapter, write it and the embeddings to `out_dir`; returns its figures on validation.

    `embedded.npz`: for `train_*` and `validation_*` rows `dialogue` (file:name), `utterance`, and `vector`
    [n, D], out-of-fold for training; `train_inside` [n, D] is what the final encoder says of its own data.
    """
    data, judged = read(data_dir, recipe.train), read(data_dir, [recipe.validation])
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    heads = fit_heads(torch.from_numpy(embed(encoder, data.text)), data, recipe)

    def judge(rows: Tensor) -> dict[str, Any]:
        return figures(logits(rows, heads[0]).argmax(1).numpy(), judged.label, judged.labels[0])

    plain = judge(torch.from_numpy(embed(encoder, judged.text)))
    report(f"plain encoder: {_short(plain)}")
    everything = np.arange(len(data.text))
    fold = folds_of(data, recipe.folds, recipe.seed) if recipe.folds else np.zeros_like(everything)
    learned_from = {"text": everything} | {f"fold-{k}": everything[fold != k] for k in range(recipe.folds)}
    meta = AdapterMeta(
        name=f"{DEFAULT_ENCODER}+emotion",
        version="1",
        dim=int(encoder.get_embedding_dimension()),
        base=DEFAULT_ENCODER,
        base_sha256=fingerprint(encoder),
        licence=recipe.licence,
        data_sources=recipe.data_sources,
        validation={"set": recipe.validation, "plain": plain},
    )
    adapted: dict[str, Any] = {}
    with Progress(console=Console(stderr=True)) as bar:
        steps = sum(recipe.kept * steps_an_epoch(len(rows), recipe) for rows in learned_from.values())
        task = bar.add_task("text adapter", total=steps)
        for name, rows in learned_from.items():
            torch.manual_seed(recipe.seed)  # every fold starts as the whole does
            student = Student(encoder, heads, recipe)

            def judge_epoch(epoch: int, name: str = name, student: Student = student) -> None:
                with torch.inference_mode():
                    parts = [student(judged.text[i : i + 64]) for i in range(0, len(judged.text), 64)]
                report(f"{name}, epoch {epoch + 1}: {_short(judge(torch.cat(parts)))}")

            fit(student, data, rows, recipe, lambda: bar.advance(task), judge_epoch)
            save(out_dir / name, student.factors(), meta)
            adapted[name] = load_encoder(DEFAULT_ENCODER, "cpu")
            apply(adapted[name], out_dir / name)
    vectors = embed(adapted["text"], judged.text)
    found = judge(torch.from_numpy(vectors))
    reached = replace(meta, validation={**meta.validation, "adapted": found})
    save(out_dir / "text", read_adapter(out_dir / "text")[1], reached)
    arrays: dict[str, Any] = {"train_inside": embed(adapted["text"], data.text), "validation_vector": vectors}
    if recipe.folds:
        arrays["train_vector"] = np.zeros_like(arrays["train_inside"])
    for k in range(recipe.folds):
        outside = np.flatnonzero(fold == k)
        arrays["train_vector"][outside] = embed(adapted[f"fold-{k}"], [data.text[i] for i in outside])
    for part, rows_of in (("train", data), ("validation", judged)):
        arrays[f"{part}_dialogue"] = np.array(rows_of.dialogue)
        arrays[f"{part}_utterance"] = rows_of.utterance
    np.savez(out_dir / "embedded.npz", **arrays)
    return found


def fit_heads(plain: Tensor, data: Utterances, recipe: TextRecipe) -> list[tuple[Tensor, Tensor]]:
    """A head a corpus, on the plain embeddings [n, D] of all of it."""
    heads = []
    for c, names in enumerate(data.labels):
        mine = data.corpus == c
        weight = class_weight(data.label[mine], len(names), recipe.class_weights, 1.0)
        label = torch.from_numpy(data.label[mine])
        rows = plain[torch.from_numpy(mine)]
        heads.append(fit_head(rows, label, weight, len(names), recipe.probe_penalty))
    return heads


def _short(found: Mapping[str, Any]) -> str:
    return f"weighted F1 {found['weighted_f1']:.4f}, macro F1 {found['macro_f1']:.4f}"


def main() -> None:
    """Read the recipe, train, and print the figures as the last line."""
    parser = argparse.ArgumentParser(description="Train the text adapter.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter and embedded.npz")
    parser.add_argument("--recipe", type=Path, default=Path("configs/train-text.toml"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        recipe = load(TextRecipe, args.recipe, {})
        found = train(recipe, args.data, args.out, lambda line: print(line, flush=True))
    except CmathStreamError as error:
        raise SystemExit(str(error)) from None
    protocol = f"single utterances of {recipe.validation}, linear head fixed on the plain embeddings"
    print(json.dumps({"task": "text-emotion", **found, "protocol": protocol}))


if __name__ == "__main__":
    main()
