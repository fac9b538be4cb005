from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realtime.errors import ModelUnavailable
from realtime.messages import Features
from tests.conftest import make_transcript
from tests.encoders import sentence_encoder
from workers import text_export, text_onnx
from workers.extractor import FeatureSpec
from workers.text import TextConfig, TextExtractor, open_embedder, uses_gpu
from workers.text_encoder import DEFAULT_ENCODER, Embedder, TorchEmbedder, adapter_path, encoder_folder
from workers.text_export import NotExportable, fingerprint
from workers.text_onnx import CARD, GRAPH, TOKENIZER, OnnxEmbedder, padded

ROOT = Path(__file__).parent.parent
WORDS = "oh no yes what you love hate it I why 😀 ?! , -".split()
SENTENCES = [
    *text_export.PROBES,
    *(" ".join(random.Random(n).choices(WORDS, k=n)) for n in range(90)),
    " ",
    "\n",
    "[MASK] [SEP] [PAD]",
    "a" * 5000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
]


@pytest.fixture(scope="module", params=["Bert", "Roberta"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    """Settings of a small random encoder whose export is in the cache."""
    folder = tmp_path_factory.mktemp(request.param)
    encoder = sentence_encoder(folder / "tiny", request.param)
    config = TextConfig(encoder=encoder, device="cpu", cache=str(folder / "cache"), threads=1)
    assert isinstance(open_embedder(config), OnnxEmbedder)
    return config


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    """The same of one kind, nothing exported yet."""
    folder = tmp_path_factory.mktemp("bert")
    return TextConfig(encoder=sentence_encoder(folder / "tiny"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextConfig, Embedder, Embedder]:
    """The default encoder with the shipped adapter: settings, in torch, in onnx."""
    cache = tmp_path_factory.mktemp("shipped")
    config = TextConfig(device="cpu", whisper="none", cache=str(cache), threads=1)
    return config, open_embedder(replace(config, runtime="torch")), open_embedder(config)


def exports(config: TextConfig) -> list[Path]:
    return sorted(Path(config.cache, "text").iterdir())


def alike(one: Embedder, other: Embedder) -> None:
    """Same identity, same vectors, in whatever order and company."""
    assert one.spec == other.spec
    expected = one(SENTENCES)
    assert expected.shape == (len(SENTENCES), one.spec.dim)
    np.testing.assert_allclose(other(SENTENCES), expected, atol=1e-4)
    order = np.random.default_rng(0).permutation(len(SENTENCES))
    np.testing.assert_allclose(other([SENTENCES[n] for n in order]), expected[order], atol=1e-4)


def test_it_gives_torchs_vectors(tiny: TextConfig) -> None:
    alike(open_embedder(replace(tiny, runtime="torch")), open_embedder(tiny))


@pytest.mark.slow
def test_the_shipped_encoder_and_adapter_are_those_of_torch(
    shipped: tuple[TextConfig, Embedder, Embedder],
) -> None:
    _, torch, onnx = shipped
    assert isinstance(torch, TorchEmbedder) and isinstance(onnx, OnnxEmbedder)
    assert onnx.spec.id == "all-MiniLM-L6-v2+emotion/2"
    alike(torch, onnx)


def test_a_text_has_one_vector_alone_and_in_company(tiny: TextConfig) -> None:
    embed = open_embedder(tiny)
    together = embed(SENTENCES)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for text, row in zip(SENTENCES, together, strict=True):
        np.testing.assert_allclose(embed([text])[0], row, atol=1e-5)
    assert embed([]).shape == (0, 32)


@pytest.mark.slow
def test_a_second_start_needs_no_torch(shipped: tuple[TextConfig, Embedder, Embedder]) -> None:
    config, _, onnx = shipped
    code = (
        "import sys; from workers.text import TextConfig, TextExtractor\n"
        f"extractor = TextExtractor({config!r}); extractor.load(); extractor.warm_up()\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(extractor.spec.id)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == onnx.spec.id


@pytest.mark.slow
def test_int8_stays_close_and_does_not_depend_on_company(
    shipped: tuple[TextConfig, Embedder, Embedder],
) -> None:
    config, _, full = shipped
    extractor = TextExtractor(replace(config, precision="int8"))
    extractor.load()
    extractor.warm_up()
    assert extractor.spec == full.spec
    said = [text for text in text_export.PROBES if text.strip()]
    rows = []
    for result in extractor.extract([make_transcript(text=text) for text in said]):
        assert isinstance(result, Features)
        rows.append(result.vector)
    cosines = (np.stack(rows) * full(said)).sum(axis=1)
    assert text_export.LEAST_COSINE <= cosines.min() < 0.9999
    (alone,) = extractor.extract([make_transcript(text=said[3])])
    assert isinstance(alone, Features)
    np.testing.assert_array_equal(alone.vector, rows[3])


def test_int8_that_strays_gives_way_to_fp32_and_says_so(
    bert: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(bert, cache=str(tmp_path), precision="int8")
    full = open_embedder(replace(config, precision="fp32"))
    monkeypatch.setattr(text_export, "LEAST_COSINE", 1.1)
    for _ in range(2):  # made, then found
        caplog.clear()
        with caplog.at_level("INFO", "workers"):
            found = open_embedder(config)
        assert [record.message for record in caplog.records if "int8" in record.message] == [
            record.message for record in caplog.records
        ]
        np.testing.assert_array_equal(found(SENTENCES[:5]), full(SENTENCES[:5]))
    assert len(exports(config)) == 2


def _cut(export: Path) -> None:
    export.joinpath(GRAPH).write_bytes(export.joinpath(GRAPH).read_bytes()[:-1])


def _no_tokenizer(export: Path) -> None:
    export.joinpath(TOKENIZER).unlink()


def _no_json(export: Path) -> None:
    export.joinpath(CARD).write_text("{")


def _other_format(export: Path) -> None:
    card = json.loads(export.joinpath(CARD).read_text("utf-8"))
    export.joinpath(CARD).write_text(json.dumps(card | {"format": "elsewhere/1"}))


@pytest.mark.parametrize("harm", [_cut, _no_tokenizer, _no_json, _other_format])
def test_a_damaged_export_is_made_again(
    harm: Callable[[Path], None], bert: TextConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(bert, cache=str(tmp_path))
    expected = open_embedder(config)(SENTENCES)
    (export,) = exports(config)
    harm(export)
    assert text_onnx.load(export, 1) is None
    assert caplog.text.count("made again") == 1
    np.testing.assert_allclose(open_embedder(config)(SENTENCES), expected, atol=1e-6)
    assert exports(config) == [export]
    assert text_onnx.load(export, 1) is not None


def test_its_name_follows_all_that_decides_it(bert: TextConfig, tmp_path: Path) -> None:
    folder, adapter = encoder_folder(bert.encoder), adapter_path(DEFAULT_ENCODER, "auto")
    assert folder is not None
    plain = fingerprint("tiny", folder, None)
    assert plain == fingerprint("tiny", folder, None)
    assert len({plain, fingerprint("other", folder, None), fingerprint("tiny", folder, adapter)}) == 3
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    assert fingerprint("tiny", folder, None) == plain
    (folder / "more.json").write_text("{}")
    assert fingerprint("tiny", folder, None) != plain
    with pytest.raises(ModelUnavailable, match="No such file"):
        fingerprint("tiny", folder, tmp_path / "nowhere")


def test_what_cannot_be_exported_runs_in_torch_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = sentence_encoder(tmp_path / "first", pooling="cls_token")
    config = TextConfig(encoder=encoder, device="cpu", cache=str(tmp_path / "cache"), threads=1)
    with caplog.at_level("INFO", "workers"):
        assert isinstance(open_embedder(config), TorchEmbedder)
    assert "torch runs the encoder: its graph gives other vectors" in caplog.text
    with pytest.raises(ModelUnavailable, match="other vectors") as caught:
        open_embedder(replace(config, runtime="onnx"))
    assert "\n" not in str(caught.value)
    assert exports(config) == []


def test_layers_that_the_graph_does_not_have_are_named(tmp_path: Path) -> None:
    layers = [type(name, (), {})() for name in ("Transformer", "Pooling", "Dense")]
    with pytest.raises(NotExportable, match="its layers are Transformer, Pooling, Dense"):
        text_export.export(TorchEmbedder(layers, FeatureSpec("tiny", "1", 8)), tmp_path / "made", 1)


def test_a_cache_that_cannot_be_written_costs_speed_only(bert: TextConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = replace(bert, cache=str(tmp_path / "file"))
    assert isinstance(open_embedder(config), TorchEmbedder)
    with pytest.raises(NotExportable, match="cannot be kept") as caught:
        open_embedder(replace(config, runtime="onnx"))
    assert "\n" not in str(caught.value)


def test_a_named_device_is_believed() -> None:
    assert not uses_gpu("cpu")
    assert uses_gpu("cuda:1")


def test_padding_is_masked() -> None:
    ids, mask = padded([[5, 6], [7]], 9)
    assert ids.tolist() == [[5, 6], [7, 9]]
    assert mask.tolist() == [[1, 1], [1, 0]]
