"""Fixtures and makers for all tests: a real Redis, watchmen over tasks and keys that are left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime.messages import Features, Picture, Segment, Transcript, UtteranceStarted
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_cluster import Client
from realtime.redis_reader import Delivery, GroupReader
from realtime.redis_server import RedisServer
from tests.cluster import RedisCluster, running_cluster

Condition = Callable[[], object]  # an awaitable is awaited, then its truth counts


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a real server that lives as long as the test session."""
    server = RedisServer()
    server.start()
    yield server.url
    server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to take away and bring back."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster of three nodes that lives as long as the test session."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[Client]:
    """Client of an empty Redis; the test fails if it leaves a key that nothing would ever remove."""
    async with connect(RedisConfig(url=redis_url)) as client:
        await client.flushall()
        yield client
        leaked = [key.decode() async for key in client.scan_iter() if not await is_bounded(client, key)]
        assert not leaked, f"keys without TTL or MAXLEN: {leaked}"


async def is_bounded(client: Client, key: bytes) -> bool:
    """A key ends by its TTL; the job streams, dead letters and the feed, which stay, by MAXLEN."""
    if await client.ttl(key) > 0:
        return True
    name = key.decode()
    bounded = ":work:" in name or name.endswith((":dlq", ":feed"))
    return bounded and await client.type(key) == b"stream"


@pytest.fixture(autouse=True)
def _no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    """Fail a test that leaves asyncio tasks running."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_task_watch")  # set up first, so torn down after the test's own fixtures


@pytest.fixture
async def _task_watch() -> AsyncIterator[None]:
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    assert not left, f"tasks left running: {[task.get_name() for task in left]}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Recordings and data sets of the developer, where there are any (see CONTRIBUTING)."""
    folder = os.environ.get("CMATH_STREAM_DATA")
    if not folder:
        pytest.skip("CMATH_STREAM_DATA is not set: no recordings here")
    return Path(folder)


async def until(condition: Condition, timeout_s: float = 5.0, every_s: float = 0.005) -> None:
    """Wait for a condition, plain or awaitable, that some task is about to make true."""
    async with asyncio.timeout(timeout_s):
        while True:
            result = condition()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(every_s)


async def read_all(source: GroupReader, count: int) -> list[Delivery]:
    """Read until `count` deliveries have come."""
    found: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await source.read(16, 50)
    return found


async def entries(client: Client, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Everything that lies in a stream."""
    found: Any = await client.xrange(stream)
    return list(found)


# ---- makers of messages: plausible values for what a test does not care about ----------------------


def make_segment(
    utterance_id: str = "u0",
    *,
    session_id: str = "s0",
    seconds: float = 0.5,
    pictures: tuple[Picture, ...] = (),
    visual_reason: str | None = "no_video",
    text: str | None = None,
    language: str | None = None,
    captions_pending: bool = False,
    deadline_unix_ms: int = 0,
) -> Segment:
    """A segment of low noise, half a second by default."""
    length = int(seconds * 16_000)
    noise = np.random.default_rng(0).integers(-3000, 3000, length).astype(np.float32) / np.float32(32768)
    return Segment(
        session_id=session_id,
        participant_id="p0",
        utterance_id=utterance_id,
        start_ms=0,
        end_ms=int(seconds * 1000),
        pcm_start_ms=0,
        pcm=noise,
        pictures=pictures,
        visual_reason=None if pictures else visual_reason,
        text=text,
        language=language,
        captions_pending=captions_pending,
        deadline_unix_ms=deadline_unix_ms,
    )


def make_transcript(
    utterance_id: str = "u0", text: str | None = None, language: str | None = None
) -> Transcript:
    """Words, or their absence, of an utterance."""
    return Transcript("s0", "p0", utterance_id, text, language, 0)


def make_started(utterance_id: str, session_id: str = "s0") -> UtteranceStarted:
    """A notice."""
    return UtteranceStarted(session_id, "p0", utterance_id, 0)


def make_features(utterance_id: str = "u0", dim: int = 4) -> Features:
    """Features of the text modality."""
    vector = np.arange(dim, dtype=np.float32)
    return Features("s0", utterance_id, "text", "stub/1", vector, 0.5, 3, "words", "en")


# ---- a Whisper without knowledge ---------------------------------------------------------------------

MULTILINGUAL_TOKENS = 51_865  # from this size of vocabulary on CTranslate2 takes a Whisper for multilingual


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random Whisper in CTranslate2's format: it hears nonsense, through every true code path."""
    import ctranslate2
    import tokenizers
    import torch
    import transformers
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    source, target = tmp_path_factory.mktemp("whisper-source"), tmp_path_factory.mktemp("whisper") / "tiny"
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    languages = [f"<|{code}|>" for code in _LANGUAGE_CODES]
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    special = ["<|endoftext|>", "<|startoftranscript|>", *languages, *(f"<|{task}|>" for task in tasks)]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    filling = MULTILINGUAL_TOKENS - len(letters) - len(special) - len(times)
    vocabulary = [*letters, *(f"ġ{number}" for number in range(filling)), *special, *times]
    words = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    words.add_special_tokens(special + times)

    torch.manual_seed(0)
    ids = words.get_vocab()
    end = ids["<|endoftext|>"]
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(vocabulary),
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=ids["<|startoftranscript|>"],
            suppress_tokens=[],
            begin_suppress_tokens=[],
        )
    )
    generation: Any = model.generation_config
    generation.lang_to_id = {language: ids[language] for language in languages}
    model.save_pretrained(source)
    words.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "WhisperTokenizer"}')
    converter = ctranslate2.converters.TransformersConverter(str(source), copy_files=["tokenizer.json"])
    converter.convert(str(target), quantization="int8")
    return str(target)
