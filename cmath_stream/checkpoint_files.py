"""Where the two files of a checkpoint lie. Apart from torch: finding them needs none."""

from __future__ import annotations

import hashlib
from pathlib import Path

from realtime.errors import CmathStreamError


class CheckpointError(CmathStreamError):
    """A checkpoint that is not there, not ours, damaged, or made for other features."""


def shipped(name: str = "live-small") -> Path:
    """Weights inside this package. Raises CheckpointError where there are none of that name."""
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint named {name!r} is shipped")
    return path


def named(name: str) -> Path:
    """A path as it is, or else a shipped checkpoint by its name. Raises CheckpointError."""
    path = Path(name)
    return path if path.suffix or len(path.parts) > 1 else shipped(name)


def pair(path: Path) -> tuple[Path, Path]:
    """Weights and card, by the path of either or by their common stem."""
    stem = path.name.removesuffix(".safetensors").removesuffix(".json")
    return path.with_name(f"{stem}.safetensors"), path.with_name(f"{stem}.json")


def fingerprint(path: Path) -> str:
    """Which checkpoint this is, by its bytes. Raises CheckpointError."""
    digest = hashlib.sha256()
    for each in pair(path):
        try:
            digest.update(each.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{error.filename}: {error.strerror}") from error
    return digest.hexdigest()
