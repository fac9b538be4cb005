"""The community's files become conversations; what is wrong with one is said in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmath_stream.training.data import MELD7, DataError
from cmath_stream.training.feature_files import IEMOCAP6
from cmath_stream.training.feature_sets import read_feature_set
from tests.feature_sets import community, embed, write_community, write_npz


@pytest.mark.parametrize("texts", (1, 4))
def test_iemocap_comes_with_its_parts_and_the_usual_validation(tmp_path: Path, texts: int) -> None:
    read = read_feature_set(write_community(tmp_path / "x.pkl", "iemocap", texts))
    assert (read.name, read.label_set, read.labels) == ("iemocap", "iemocap6", IEMOCAP6)
    assert read.modalities == (("text", 6), ("audio", 5), ("visual", 4))
    assert read.validation == ("Ses02F_impro02", "Ses04F_impro07")
    assert read.train is not None
    assert read.test is not None
    assert len(read.train) == 7
    assert len(read.test) == 3
    assert len({*read.train, *read.validation, *read.test}) == len(read.conversations) == 12
    fields = community("iemocap", texts)
    for each in read.conversations:
        assert each.example.label.tolist() == fields[2][each.name]
        np.testing.assert_allclose(
            each.example.features[0], fields[3][each.name] + (texts - 1) / 2, rtol=1e-5, atol=1e-5
        )
        same = np.array(fields[1][each.name])
        assert (same[:, None] == same).tolist() == (
            each.example.speaker[:, None] == each.example.speaker
        ).tolist()


@pytest.mark.parametrize("texts", (1, 4))
def test_meld_has_seven_emotions_and_one_hot_speakers(tmp_path: Path, texts: int) -> None:
    read = read_feature_set(write_community(tmp_path / "x.pkl", "meld", texts))
    assert (read.label_set, read.labels, read.validation) == ("meld7", MELD7, None)
    assert [each.name for each in read.conversations] == [str(d) for d in range(12)]  # 10 after 9
    speakers = community("meld", texts)[1]
    people = np.argmax(speakers[4], axis=1)
    assert len(set(people)) == len(set(read.conversations[4].example.speaker))
    assert read.conversations[4].example.speaker[0] == 0


def test_words_of_a_pickle_replace_its_text_alone(tmp_path: Path) -> None:
    path = write_community(tmp_path / "x.pkl", "meld", 4)
    read = read_feature_set(path, text="words", embed=embed)
    assert read.modalities == (("text", 7), ("audio", 5), ("visual", 4))
    for each in read.conversations:
        assert each.example.features[0].argmax(axis=1).tolist() == each.example.label.tolist()


def test_npz_rows_come_in_order(tmp_path: Path) -> None:
    read = read_feature_set(write_npz(tmp_path / "mosi" / "train.npz"))
    assert (read.name, read.label_set, read.labels) == ("mosi", "mosi2", ("negative", "positive"))
    assert read.modalities == (("text", 5), ("audio", 4), ("visual", 3))
    assert read.train is read.validation is read.test is None
    assert [each.name for each in read.conversations] == [f"v{d:03}" for d in range(30)]
    with np.load(tmp_path / "mosi" / "train.npz") as stored:
        row = np.flatnonzero((stored["dialogue"] == "v003") & (stored["utterance"] == 2))[0]
        np.testing.assert_array_equal(read.conversations[3].example.features[1][1], stored["audio"][row])
        assert read.conversations[3].example.label[1] == stored["label"][row]
    assert len(read.groups) == sum(len(each.label) for each in read.examples)


def test_words_of_an_npz_leave_out_what_leaks(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "mosi.npz")
    read = read_feature_set(path, text="words", embed=embed)
    assert read.modalities == (("text", 7), ("audio", 4))
    first = read.conversations[0]
    assert first.words is not None
    np.testing.assert_array_equal(first.example.features[0], embed(list(first.words)))


def test_absent_is_what_is_zero_or_not_finite(tmp_path: Path) -> None:
    audio = np.ones((3, 4), np.float32)
    audio[1], audio[2, 0] = 0.0, np.nan
    three: dict[str, Any] = {
        "dialogue": np.array(["a"] * 3),
        "utterance": np.arange(3),
        "label": np.array([0, 1, -1]),
        "text": np.ones((3, 2)),
        "words": None,
        "visual": None,
        "speaker": np.array(["x", "y", "x"]),
    }
    read = read_feature_set(write_npz(tmp_path / "x.npz", audio=audio, **three))
    assert read.examples[0].presence.tolist() == [[True, True], [True, False], [True, False]]
    assert read.examples[0].speaker.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="no words"):
        read_feature_set(tmp_path / "x.npz", text="words", embed=embed)


def test_modalities_and_dialogues_can_be_chosen(tmp_path: Path) -> None:
    read = read_feature_set(write_npz(tmp_path / "x.npz"))
    sound = read.only(["visual", "audio"])
    assert sound.modalities == (("audio", 4), ("visual", 3))
    assert sound.examples[0].features[0] is read.examples[0].features[1]
    assert sound.examples[0].presence.shape[1] == 2
    assert [each.name for each in read.part(["v004", "v001"]).conversations] == ["v001", "v004"]
    with pytest.raises(DataError, match="smell"):
        read.only(["audio", "smell"])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"label": None}, "no column 'label'"),
        ({"classes": np.array(["one"])}, "a label outside 1 classes"),
        ({"utterance": np.zeros(3, np.int64)}, "column 'utterance' has not one row"),
        ({"audio": np.zeros((3, 4))}, "column 'audio' has not one row"),
        ({"text": None, "audio": None, "visual": None}, "no features"),
    ],
)
def test_what_is_wrong_with_an_npz_is_said(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    path = write_npz(tmp_path / "x.npz", **changed)
    with pytest.raises(DataError, match=rf"x\.npz: .*{reason}") as caught:
        read_feature_set(path)
    assert "\n" not in str(caught.value)


def test_an_npz_of_objects_or_of_twins_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", label=np.array([{}, []], dtype=object))
    with pytest.raises(DataError, match="not a readable npz"):
        read_feature_set(tmp_path / "x.npz")
    with np.load(write_npz(tmp_path / "y.npz")) as stored:
        columns = dict(stored)
    columns["utterance"][:] = 1
    np.savez(tmp_path / "y.npz", **columns)
    with pytest.raises(DataError, match="v000: utterance 1 comes twice"):
        read_feature_set(tmp_path / "y.npz")


def drop(key: Any, place: int) -> Callable[[list[Any]], Any]:
    return lambda fields: fields[place].pop(key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda fields: fields.pop(), "no known feature pickle"),
        (drop(3, 4), "dialogue 3: not in every table"),
        (lambda fields: fields[4][3].pop(), "dialogue 3: columns of"),
        (lambda fields: fields[2].update({3: [9] * len(fields[2][3])}), "dialogue 3: a label outside"),
        (lambda fields: fields[5].update({3: [["x"]] * len(fields[2][3])}), "no table of numbers"),
        (lambda fields: fields[5].update({3: np.ones((len(fields[2][3]), 2))}), "elsewhere"),
        (lambda fields: fields[8].append(0), "no two parts"),
        (lambda fields: fields[4].update({3: None}), "dialogue 3: not in every table"),
        (lambda fields: fields[1].update({3: [[0, 0]] * len(fields[2][3])}), "nor one-hot"),
        (lambda fields: fields[3].update({3: [[0, 0], [1]]}), "no table of numbers"),
        (lambda fields: fields[5].update({3: [np.ones(10**5)] * 10**5}), "bytes when unpacked"),
        (lambda fields: fields.__setitem__(7, None), "no lists"),
    ],
)
def test_what_is_wrong_with_a_pickle_is_said(
    tmp_path: Path, change: Callable[[list[Any]], Any], reason: str
) -> None:
    fields = community("meld", 1)
    change(fields)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(fields if len(fields) == 10 else fields[:5]))
    with pytest.raises(DataError, match=rf"x\.pkl: .*{reason}") as caught:
        read_feature_set(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("none.npz", "none.pkl", "x.csv"):
        with pytest.raises(DataError, match=name):
            read_feature_set(tmp_path / name)
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a readable npz"):
        read_feature_set(tmp_path / "bad.npz")
    with pytest.raises(DataError, match="need an encoder"):
        read_feature_set(tmp_path / "bad.npz", text="words")
