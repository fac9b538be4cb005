"""`doctor`: what works on this machine and, in one line each, what to do about what does not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from rich.console import Console

from cmath_stream.config import Settings, load_checkpoint, make_extractor
from realtime.errors import CmathStreamError
from realtime.messages import MODALITIES
from realtime.redis_bus import check, connect
from realtime.redis_server import redis_server
from realtime.sealed import read_key
from realtime.taping import TapeConfig
from realtime.turn import IceServer, ice_servers
from realtime.wall_clock import off_by_s

Check = Callable[[Settings], Awaitable[str]]

_REDIS = (6, 2)


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
            console.print(f"{mark}  {name:<11}{error}", soft_wrap=True)
        else:
            console.print(f"[green]ok[/]    {name:<11}{found}", soft_wrap=True)
    return good


async def _python(_: Settings) -> str:
    names = ("torch", "av", "aiortc", "faster-whisper", "sentence-transformers", "redis")
    return f"{platform.python_version()}, " + ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)


async def _redis(settings: Settings) -> str:
    async with redis_server(settings.redis.url, None) as url:
        from dataclasses import replace

        async with connect(replace(settings.redis, url=url)) as client:
            await check(client)
            info = await client.info()
    if settings.redis.url is None:
        return f"{_server(info)}, started by us"
    if tuple(map(int, info["redis_version"].split(".")[:2])) < _REDIS:
        raise CmathStreamError(f"{_server(info)}: 6.2 or newer is needed")
    wrong = []
    if info.get("maxmemory_policy") not in (None, "noeviction"):
        wrong.append(f"maxmemory-policy is {info['maxmemory_policy']}: sessions may vanish, set noeviction")
    if not info.get("aof_enabled"):
        wrong.append("appendonly is off: a restart loses what is under way")
    return "; ".join([f"{_server(info)}, yours", *wrong])


def _server(info: dict[str, Any]) -> str:
    return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"


async def _clock(settings: Settings) -> str:
    if settings.redis.url is None:
        return "Redis is on this machine"
    async with connect(settings.redis) as client:
        await check(client)
        off_s = await off_by_s(client)
    if abs(off_s) > 1.0:
        raise CmathStreamError(
            f"{off_s:+.1f} s off Redis's, by which all is counted: logs will not agree; set it by NTP"
        )
    return f"{off_s * 1000:+.0f} ms off Redis's"


async def _ice(settings: Settings) -> str:
    """Every STUN and TURN server gives the address that it is there for."""
    servers = ice_servers(settings.ingest.ice_servers, settings.ingest.turn, time.time())
    silent = [each["urls"] for each in servers if not await _gives_address(each)]
    if silent:
        raise CmathStreamError(f"no address from {', '.join(silent)}: is it up, and is the secret the same?")
    return ", ".join(each["urls"] for each in servers) or "none set: clients need a way to our own addresses"


async def _gives_address(server: IceServer) -> bool:
    pc = RTCPeerConnection(RTCConfiguration([RTCIceServer(**server)]))
    try:
        pc.createDataChannel("doctor")
        await pc.setLocalDescription(await pc.createOffer())
        kind = "srflx" if server["urls"].startswith("stun:") else "relay"
        return f" typ {kind}" in pc.localDescription.sdp
    finally:
        await pc.close()


async def _tape(settings: Settings) -> str:
    return _tape_of(settings.tape)


def _tape_of(config: TapeConfig) -> str:
    if not config.folder:
        return "off: nothing is recorded"
    read_key(Path(config.key_file))
    folder = Path(config.folder)
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise CmathStreamError(f"tape.folder {folder} cannot be written to")
    return f"rooms {', '.join(config.rooms) or '(none)'} are recorded in {folder}"


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
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    gib = torch.cuda.mem_get_info()[1] / 2**30
    return f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}, cuDNN {cudnn}, {gib:.0f} GiB"


async def _engine(settings: Settings) -> str:
    """What the fusion's model runs on, and what it lacks for the best."""
    from cmath_stream import compile as compiling
    from cmath_stream.runtimes import runtime

    compiling.chosen(settings.fusion.engine.runtime)  # one that was named must be there
    missing = runtime("tensorrt").missing()
    if missing is not None:
        raise CmathStreamError(f"no TensorRT, which needs {missing}; others: `cmath-stream engine info`")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch-tensorrt", "tensorrt"))


async def _gcc(_: Settings) -> str:
    path = shutil.which("gcc") or shutil.which("cc")
    if path is None:
        raise CmathStreamError("no C compiler: compiled CPU engines cannot be built; install gcc")
    return path


_CHECKS: tuple[tuple[str, bool, Check], ...] = (
    ("python", True, _python),
    ("redis", True, _redis),
    ("clock", False, _clock),
    ("port", True, _port),
    ("ice", False, _ice),
    ("tape", True, _tape),
    ("fusion", True, _checkpoint),
    ("encoders", True, _encoders),
    ("speech", False, _speech),
    ("gpu", False, _gpu),
    ("tensorrt", False, _engine),
    ("compiler", False, _gcc),
)
