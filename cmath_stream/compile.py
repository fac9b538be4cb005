"""Compiled engines on disk: which files belong to which model, machine and runtime, and how they come about.

An engine is a folder with a file a program and `engine.json`, the identity it was built for. A compiled file
fits one model, one machine and one version of its runtime: whatever else is found there is not taken. Nothing
here decides when to build; `Engine` runs eagerly until it is given what was built.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cmath_stream.engine import Engine
from cmath_stream.model import CMATH
from cmath_stream.programs import Program, ProgramName
from cmath_stream.runtimes import RUNTIMES, Call, RuntimeName, RuntimeUnavailable, eager, runtime
from realtime.cache import cache_folder

FORMAT = 1
_CARD = "engine.json"
TOLERANCE: Mapping[str, float] = {
    "fp32": 1e-4,
    "fp16": 2e-2,
}  # of all numbers, against eager in the same precision


@dataclass(frozen=True, slots=True)
class Identity:
    """What a compiled engine was built for; all of it must agree."""

    format: int
    runtime: str
    precision: str
    model_sha256: str
    batch: int
    window: int
    pages: int
    machine: str  # processor and its vector instructions, or the card and its architecture
    packages: Mapping[str, str]  # version by name


def folder() -> Path:
    """Where engines are kept."""
    return cache_folder() / "engines"


def identity(engine: Engine, name: RuntimeName) -> Identity:
    """What an engine must have been built for to run here."""
    program = engine.programs["window"]
    model, shape = program.module.model, program.shape
    assert isinstance(model, CMATH)
    digest = hashlib.sha256(repr(model.config).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return Identity(
        format=FORMAT,
        runtime=name,
        precision=engine.info.precision,
        model_sha256=digest.hexdigest(),
        batch=shape.batch,
        window=shape.window,
        pages=shape.pages,
        machine=_machine(),
        packages=_packages(name),
    )


def chosen(wanted: str) -> RuntimeName:
    """`auto`: the best that this machine can build with. Raises RuntimeUnavailable for one that it cannot."""
    if wanted == "auto":
        return next(name for name in RUNTIMES if name == "eager" or runtime(name).missing() is None)
    name = next(each for each in RUNTIMES if each == wanted)
    if name != "eager" and (missing := runtime(name).missing()):
        raise RuntimeUnavailable(f"engine.runtime is {name!r}, which needs {missing}")
    return name


def where(wanted: Identity) -> Path:
    """The folder of an engine; other machines and models have others."""
    digest = hashlib.sha256(json.dumps(asdict(wanted), sort_keys=True).encode()).hexdigest()
    return folder() / f"{wanted.runtime}-{wanted.precision}-{digest[:16]}"


def built(wanted: Identity) -> bool:
    """Whether a whole engine with this identity is there."""
    card = read_card(where(wanted))
    return card is not None and card["identity"] == asdict(wanted)


def read_card(path: Path) -> dict[str, Any] | None:
    """`engine.json` of a folder; None where none is, or where a file is not the one that was built."""
    try:
        card: dict[str, Any] = json.loads((path / _CARD).read_text("utf-8"))
        whole = all(_sha256(path / name) == digest for name, digest in card["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return card if whole else None


def build(engine: Engine, name: RuntimeName) -> Path:
    """Compile what the engine runs, try it beside eager, and keep it; returns the folder.

    Written elsewhere and moved in one step, so that half an engine is never found, nor one that is off or
    that ends the process which loads it: a fusion never meets it. Raises RuntimeUnavailable.
    """
    wanted = identity(engine, name)
    target = where(wanted)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        files = {}
        for program in _needed(engine).values():
            path = partial / f"{program.name}{runtime(name).suffix}"
            runtime(name).build(program, path)
            files[path.name] = _sha256(path)
        off = [each for each in check(engine, _loaded(engine, name, partial, 1)) if not each.within]
        if off:
            raise RuntimeUnavailable(f"{name}: {off[0].program} is {off[0].difference:.1e} from eager")
        (partial / _CARD).write_text(json.dumps({"identity": asdict(wanted), "files": files}, indent=2))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def load(engine: Engine, name: RuntimeName, threads: int) -> dict[ProgramName, Call]:
    """What `Engine.use` takes, of a built engine. Raises RuntimeUnavailable."""
    return _loaded(engine, name, where(identity(engine, name)), threads)


def _loaded(engine: Engine, name: RuntimeName, path: Path, threads: int) -> dict[ProgramName, Call]:
    calls = {key: eager(program) for key, program in engine.programs.items()}
    for key in _needed(engine):
        calls[key] = runtime(name).load(path / f"{key}{runtime(name).suffix}", threads)
    return calls


@dataclass(frozen=True, slots=True)
class Checked:
    """How far a program of a runtime is from eager in the same precision."""

    program: str
    batch: int
    difference: float  # greatest of all numbers
    within: bool


def check(engine: Engine, calls: Mapping[ProgramName, Call]) -> list[Checked]:
    """Every program of calls beside eager, at a batch of one, a few and the most."""
    found = []
    for name, program in _needed(engine).items():
        right = eager(program)
        for batch in sorted({1, min(3, program.shape.batch), program.shape.batch}):
            inputs = program.inputs(batch, seed=batch)
            pairs = zip(calls[name](*inputs), right(*inputs), strict=True)
            difference = max(float((said.float().cpu() - true.float()).abs().max()) for said, true in pairs)
            within = difference <= TOLERANCE[engine.info.precision]
            found.append(Checked(name, batch, difference, within))
    return found


def _needed(engine: Engine) -> dict[ProgramName, Program]:
    """What the engine calls: a model that remembers has no use for the full window."""
    return {name: engine.programs[name] for name in engine.called}


def _machine() -> str:
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()} sm_{major}{minor}"
    return f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _packages(name: RuntimeName) -> dict[str, str]:
    wanted = {"tensorrt": ("torch", "torch-tensorrt", "tensorrt"), "onnx": ("torch", "onnxruntime")}
    found = {}
    for package in wanted.get(name, ("torch",)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
