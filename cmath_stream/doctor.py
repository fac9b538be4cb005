"""`doctor`: what works on this machine and, in one line each, what to do about what does not."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import socket
from collections.abc import Awaitable, Callable

from rich.console import Console

from cmath_stream.config import Settings, load_checkpoint, make_extractor
from realtime.errors import CmathStreamError
from realtime.messages import MODALITIES
from realtime.redis_bus import check, connect
from realtime.redis_server import redis_server

Check = Callable[[Settings], Awaitable[str]]


async def examine(settings: Settings) -> bool:
    """Run every check and print a line each; True if nothing that is needed fails."""
    console = Console(highlight=False)
    good = True
    for name, needed, look in _CHECKS:
        try:
            found = await look(settings)
        except (CmathStreamError, OSError, ImportError) as error:
            good = good and not needed
            mark = "[red]fail[/]" if needed else "[yellow]none[/]"
            console.print(f"{mark}  {name:<11}{error}")
        else:
            console.print(f"[green]ok[/]    {name:<11}{found}")
    return good


async def _python(_: Settings) -> str:
    names = ("torch", "av", "aiortc", "faster-whisper", "sentence-transformers", "redis")
    return f"{platform.python_version()}, " + ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)


async def _redis(settings: Settings) -> str:
    async with redis_server(settings.redis.url, None) as url:
        from dataclasses import replace

        async with connect(replace(settings.redis, url=url)) as client:
            await check(client)
            info = await client.info("server")
    whose = "yours" if settings.redis.url else "started by us"
    return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}, {whose}"


async def _port(settings: Settings) -> str:
    where = (settings.ingest.host, settings.ingest.port)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            raise OSError(f"{where[0]}:{where[1]}: {error.strerror}; set ingest.port") from None
    return f"{where[0]}:{where[1]} is free"


async def _encoders(settings: Settings) -> str:
    """Every extractor loads, and makes what the checkpoint was trained on."""
    checkpoint, found = load_checkpoint(settings.fusion), []
    for modality in MODALITIES:
        extractor = make_extractor(modality, settings)
        extractor.load()
        if extractor.spec is not None:
            found.append(f"{modality} {extractor.spec.id} ({extractor.spec.dim})")
            checkpoint.require({modality: extractor.spec})
    return ", ".join(found)


async def _checkpoint(settings: Settings) -> str:
    meta = load_checkpoint(settings.fusion).meta
    return f"{meta.name} {meta.version}, {'+'.join(m.modality for m in meta.modalities)}, {meta.licence}"


async def _speech(settings: Settings) -> str:
    from workers.transcribe import find_model

    return f"faster-whisper, {find_model(settings.text.whisper)}"


async def _gpu(_: Settings) -> str:
    import torch

    if not torch.cuda.is_available():
        raise CmathStreamError("no CUDA device: everything runs on the CPU")
    return torch.cuda.get_device_name(0)


async def _gcc(_: Settings) -> str:
    path = shutil.which("gcc") or shutil.which("cc")
    if path is None:
        raise CmathStreamError("no C compiler: compiled CPU engines cannot be built; install gcc")
    return path


_CHECKS: tuple[tuple[str, bool, Check], ...] = (
    ("python", True, _python),
    ("redis", True, _redis),
    ("port", True, _port),
    ("fusion", True, _checkpoint),
    ("encoders", True, _encoders),
    ("speech", False, _speech),
    ("gpu", False, _gpu),
    ("compiler", False, _gcc),
)
