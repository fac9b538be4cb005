"""The files that feature sets come in, read into raw dialogues: npz, and the community's pickles.

The pickles are those of SDT and MMGCN for IEMOCAP and MELD, told apart by their number of fields; an npz has
one row an utterance (`dialogue`, `utterance`, `label`, `classes`, and what there is of `text`, `audio`,
`visual`, `words`, `speaker`). Knows layouts; not which features are fit for what.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmath_stream.training.data import MELD7, DataError, Floats
from cmath_stream.training.safe_pickle import LARGEST_BYTES, read_pickle

IEMOCAP6 = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MODALITIES = ("text", "audio", "visual")

# The dialogues that COSMIC held out of IEMOCAP's training part; later work validates on them too.
IEMOCAP_VALIDATION = (
    "Ses01M_impro01", "Ses01M_script03_1", "Ses02F_impro02", "Ses02F_impro07", "Ses02M_script01_2",
    "Ses03F_impro01", "Ses03M_impro02", "Ses03M_impro08a", "Ses03M_script02_2", "Ses03M_script03_2",
    "Ses04F_impro07", "Ses04F_script02_1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawDialogue:
    """A dialogue as it lies in a file; the columns may yet differ in length."""

    name: str
    features: Mapping[str, Floats]  # by modality, [N, D_m]
    label: NDArray[np.int64]  # [N]
    speakers: Sequence[str]
    words: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class RawSet:
    """A file's dialogues in order of name, and the parts its makers laid down."""

    name: str
    labels: tuple[str, ...]  # [C]
    dialogues: Sequence[RawDialogue]
    train: tuple[str, ...] | None = None  # without `validation`
    validation: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None


class _Wrong(Exception):
    """What is wrong with a file, whose name is added further up."""


def read_raw(path: Path) -> RawSet:
    """Read a feature file by the ending of its name. Raises DataError, in one line, for what is none."""
    try:
        if path.suffix == ".npz":
            return _read_npz(path)
        if path.suffix == ".pkl":
            return _read_community(path)
    except _Wrong as error:
        raise DataError(f"{path}: {error}") from error
    raise DataError(f"{path}: neither a feature .npz nor a community .pkl")


def _read_npz(path: Path) -> RawSet:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_BYTES:
                raise _Wrong(f"larger than {LARGEST_BYTES} bytes when unpacked")
        with np.load(path, allow_pickle=False) as stored:
            columns = {key: np.asarray(stored[key]) for key in stored.files}
    except OSError as error:
        raise _Wrong(f"cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise _Wrong(f"not a readable npz: {error}") from error
    if missing := {"dialogue", "utterance", "label", "classes"} - set(columns):
        raise _Wrong(f"no column {sorted(missing)[0]!r}")
    labels = [str(name) for name in columns.pop("classes").ravel()]
    if wrong := sorted(key for key, column in columns.items() if len(column) != len(columns["label"])):
        raise _Wrong(f"column {wrong[0]!r} has not one row an utterance")
    dialogue, utterance = columns["dialogue"].astype(str), _integers(columns["utterance"], "utterance")
    order = np.lexsort((utterance, dialogue))
    dialogue, utterance = dialogue[order], utterance[order]
    starts = np.flatnonzero(np.r_[True, dialogue[1:] != dialogue[:-1]])
    again = np.flatnonzero((dialogue[1:] == dialogue[:-1]) & (utterance[1:] == utterance[:-1]))
    if len(again):
        raise _Wrong(f"dialogue {dialogue[again[0]]}: utterance {utterance[again[0]]} comes twice")
    taken = [m for m in MODALITIES if m in columns]
    features = {m: _matrix(columns[m], f"column {m!r}")[order] for m in taken}
    label = _integers(columns["label"], "label")[order]
    words = columns["words"][order].astype(str).tolist() if "words" in columns else None
    speakers = columns["speaker"][order].astype(str).tolist() if "speaker" in columns else None
    dialogues = [
        RawDialogue(
            name=str(dialogue[rows[0]]),
            features={m: column[rows] for m, column in features.items()},
            label=label[rows],
            speakers=["only"] * len(rows) if speakers is None else [speakers[row] for row in rows],
            words=None if words is None else [words[row] for row in rows],
        )
        for rows in np.split(np.arange(len(order)), starts[1:])
        if len(rows)
    ]
    part = path.stem in ("train", "valid", "validation", "dev", "test")
    return RawSet(path.parent.name if part else path.stem, tuple(labels), dialogues)


@dataclass(frozen=True, slots=True)
class _Layout:
    """A community pickle: a list of tables by dialogue, then the training and the test dialogues."""

    name: str
    labels: tuple[str, ...]
    texts: int  # text tables, which are averaged
    rest: int  # fields after the test dialogues, of no use here


_LAYOUTS = {
    9: _Layout("iemocap", IEMOCAP6, 1, 0),  # MMGCN
    10: _Layout("meld", MELD7, 1, 1),
    12: _Layout("iemocap", IEMOCAP6, 4, 0),  # SDT
    13: _Layout("meld", MELD7, 4, 1),
}


def _read_community(path: Path) -> RawSet:
    fields = read_pickle(path)
    layout = _LAYOUTS.get(len(fields)) if isinstance(fields, (list, tuple)) else None
    if layout is None:
        raise _Wrong(f"no known feature pickle: {len(fields) if hasattr(fields, '__len__') else 1} fields")
    tables = fields[1 : len(fields) - 2 - layout.rest]  # speakers, labels, text.., audio, visual, sentences
    if not all(isinstance(table, dict) for table in tables):
        raise _Wrong("no known feature pickle: a field is no table by dialogue")
    ids = [key for key in tables[1] if isinstance(key, (int, np.integer, str))]
    for key in ids:
        if not all(isinstance(table.get(key), (list, tuple, np.ndarray)) for table in tables):
            raise _Wrong(f"dialogue {key}: not in every table")
    dialogues, budget = [], LARGEST_BYTES
    for key in sorted(ids, key=lambda key: (isinstance(key, str), key)):
        speakers, label, *texts, audio, visual, sentences = (table[key] for table in tables)
        where = f"dialogue {key}"
        # A list may name one large array a million times, and must not become a million copies.
        budget -= sum(map(_float32_bytes, (*texts, audio, visual)))
        if budget < 0:
            raise _Wrong(f"larger than {LARGEST_BYTES} bytes when unpacked")
        levels = [_matrix(level, where) for level in texts]
        if len({level.shape for level in levels}) != 1:
            raise _Wrong(f"{where}: text layers of different shapes")
        features = {
            "text": np.asarray(np.mean(levels, axis=0), dtype=np.float32),
            "audio": _matrix(audio, where),
            "visual": _matrix(visual, where),
        }
        words = [str(sentence) for sentence in sentences]
        label = _integers(label, where)
        dialogues.append(RawDialogue(str(key), features, label, [_speaker(each) for each in speakers], words))
    train, test = (sorted({str(key) for key in _names(field)}) for field in fields[-2 - layout.rest :][:2])
    if not train or not test or not {*train, *test} <= set(map(str, ids)) or set(train) & set(test):
        raise _Wrong("its training and test dialogues are no two parts of it")
    held = tuple(key for key in train if layout.name == "iemocap" and key in IEMOCAP_VALIDATION)
    rest = tuple(key for key in train if key not in held)
    return RawSet(layout.name, layout.labels, dialogues, rest, held or None, tuple(test))


def _names(field: Any) -> Collection[Any]:
    if isinstance(field, (list, tuple, set, frozenset)):
        return field
    if isinstance(field, np.ndarray):
        return list(field.ravel())
    raise _Wrong("its training and test dialogues are no lists")


def _speaker(value: Any) -> str:
    """'M' or 'F' in IEMOCAP, one-hot in MELD."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, np.ndarray)) and sum(np.ravel(value) == 1) == 1:
        return str(int(np.argmax(value)))
    raise _Wrong("a speaker that is neither a name nor one-hot")


def _float32_bytes(rows: Any) -> int:
    """Of a list of rows, or an array, as float32."""
    if isinstance(rows, np.ndarray):
        return 4 * rows.size
    return 4 * len(rows) * (len(rows[0]) if rows and isinstance(rows[0], (list, tuple, np.ndarray)) else 1)


def _matrix(rows: Any, where: str) -> Floats:
    """[N, D] float32 of an array or of a list of rows."""
    try:
        matrix = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise _Wrong(f"{where}: features that are no table of numbers") from error
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise _Wrong(f"{where}: features of shape {matrix.shape}")
    return matrix


def _integers(values: Any, where: str) -> NDArray[np.int64]:
    try:
        array = np.asarray(values)
        integers = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "biuf" or (integers != array).any():
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise _Wrong(f"{where}: not whole numbers where labels or places belong") from error
    return integers
