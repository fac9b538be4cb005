"""What is written in the Dockerfile and the manifests, as facts that a test can hold against the program.

`containers_of_compose` and `containers_of_kubernetes` give the same `Container`; `problems` says what is
wrong with one. Nothing is executed: a command line is parsed by the CLI's parser, the environment by the
settings'.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer.main
import yaml

from cmath_stream.cli import app
from cmath_stream.config import Settings
from realtime import settings
from realtime.errors import SettingsError

ROOT = Path(__file__).parent.parent
OURS = "cmath-stream/"  # images of this name are built from the Dockerfile's target of the rest
_GIVEN = "given-by-the-operator-0123456789"  # stands for a secret: whoever starts the container puts it in
_SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|_KEY$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Container:
    """One container as its file describes it; what Kubernetes says of the pod is folded in."""

    where: str
    image: str
    arguments: list[str] | None  # None: the image's own
    environ: Mapping[str, str | None]  # None: from a Secret
    user: str  # "" where nothing is said
    hardened: bool  # read-only, no capability but to bind, no way to more
    limited: bool  # memory, at least
    grace_s: float
    written: list[str] = field(default_factory=list)  # variables with a secret in the file itself
    ports: list[int] = field(default_factory=list)
    probe_commands: list[list[str]] = field(default_factory=list)
    probe_paths: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stage:
    """One target of a Dockerfile; instructions of the stages it builds on come first."""

    base: str  # the image below all of them
    instructions: list[tuple[str, str]]

    def last(self, name: str) -> str:
        """Arguments of the instruction that is in force, "" if there is none."""
        return next((value for key, value in reversed(self.instructions) if key == name), "")


def stages(text: str) -> dict[str, Stage]:
    """The targets of a Dockerfile. Raises ValueError for a stage that is nowhere."""
    found: dict[str, Stage] = {}
    defaults: dict[str, str] = {}
    name = ""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "ARG" and not found:
            argument, _, default = value.partition("=")
            defaults[argument] = default
        elif key == "FROM":
            of, _, name = (part.strip() for part in value.partition(" AS "))
            below = found.get(of)
            base = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], of)
            found[name] = Stage(below.base if below else base, list(below.instructions) if below else [])
        elif key:
            found[name].instructions.append((key, value.strip()))
            source = re.match(r"--from=(\S+)", value)
            if source and source[1] not in found:
                raise ValueError(f"{name} copies from {source[1]}, which is no stage above it")
    return found


# ---- manifests -------------------------------------------------------------------------------------


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def containers_of_compose(compose: Mapping[str, Any]) -> Iterator[Container]:
    """One a service, variables of the operator filled in."""
    for name, service in compose["services"].items():
        healthcheck = service.get("healthcheck", {}).get("test", [])
        binds = set(service.get("cap_add", [])) <= {"NET_BIND_SERVICE"}
        given = {key: str(value) for key, value in service.get("environment", {}).items()}
        yield Container(
            where=name,
            image=service["image"],
            arguments=service.get("command"),
            environ={key: filled(value) for key, value in given.items()},
            user=str(service.get("user", "")),
            hardened=binds
            and service.get("read_only") is True
            and service.get("cap_drop") == ["ALL"]
            and "no-new-privileges:true" in service.get("security_opt", []),
            limited="memory" in service.get("deploy", {}).get("resources", {}).get("limits", {}),
            grace_s=float(str(service.get("stop_grace_period", "10s")).removesuffix("s")),
            written=[key for key, value in given.items() if is_literal(key, value)],
            probe_commands=[healthcheck[1:]] if healthcheck[:1] == ["CMD"] else [],
        )


def containers_of_kubernetes(workload: Mapping[str, Any]) -> Iterator[Container]:
    """The containers of a Deployment."""
    pod = workload["spec"]["template"]["spec"]
    of_pod = pod.get("securityContext", {})
    for container in pod["containers"]:
        context = container.get("securityContext", {})
        given = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
        probes = [container.get(kind, {}) for kind in ("readinessProbe", "livenessProbe", "startupProbe")]
        yield Container(
            where=f"{workload['metadata']['name']}/{container['name']}",
            image=container["image"],
            arguments=container.get("args"),
            environ={key: value and re.sub(r"\$\(\w+\)", _GIVEN, value) for key, value in given.items()},
            user=str(of_pod.get("runAsUser", "")) if of_pod.get("runAsNonRoot") else "",
            hardened=context.get("readOnlyRootFilesystem") is True
            and context.get("allowPrivilegeEscalation") is False
            and context.get("capabilities") == {"drop": ["ALL"]},
            limited="memory" in container.get("resources", {}).get("limits", {}),
            grace_s=pod.get("terminationGracePeriodSeconds", 30),
            written=[key for key, value in given.items() if value and is_literal(key, value)],
            ports=[port["containerPort"] for port in container.get("ports", [])],
            probe_commands=[probe["exec"]["command"] for probe in probes if "exec" in probe],
            probe_paths=[probe["httpGet"]["path"] for probe in probes if "httpGet" in probe],
        )


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge patch, as far as ours go: maps are merged, lists of named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {
            key: merged(base[key], value) if key in base else value for key, value in patch.items()
        }
    if isinstance(base, list) and all(isinstance(each, dict) and "name" in each for each in (*base, *patch)):
        by_name = {each["name"]: each for each in patch}
        return [merged(each, by_name.get(each["name"], {})) for each in base]
    return patch


def filled(text: str) -> str:
    """A Compose value with the operator's variables in it: the default, or something of its own."""
    return re.sub(r"\$\{\w+(?::-(?P<default>[^}]*)|:\?[^}]*)\}", lambda m: _or_given(m["default"]), text)


def _or_given(default: str | None) -> str:
    return _GIVEN if default is None else default


def is_literal(name: str, value: str) -> bool:
    """Whether a secret is written into the file: in a variable named so, or as the password of a URL."""
    password = re.search(r"//[^/@:]*:([^/@]+)@", value)
    secret = value if _SECRET.search(name) else password[1] if password else ""
    return bool(secret) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}|\$\(\w+\)", secret)


# ---- judging ---------------------------------------------------------------------------------------


def problems(container: Container, targets: Mapping[str, Stage], routes: set[str]) -> list[str]:
    """What is wrong with a container, a line each."""
    found = []
    if not is_pinned(container.image):
        found.append(f"image {container.image} has no exact version")
    if container.user.partition(":")[0] in ("", "0", "root"):
        found.append("it may run as root")
    if not container.hardened:
        found.append("it is not read-only without capabilities and privileges")
    found += [f"a secret is written into {name}" for name in container.written]
    if not container.limited:
        found.append("it has no limit of memory")
    if container.image.startswith(OURS):
        found += _problems_of_ours(container, targets, routes)
    return [f"{container.where}: {each}" for each in found]


def _problems_of_ours(container: Container, targets: Mapping[str, Stage], routes: set[str]) -> list[str]:
    target = container.image.removeprefix(OURS).partition(":")[0]
    if target not in targets:
        return [f"the Dockerfile has no target {target}"]
    stage = targets[target]
    arguments = container.arguments or json.loads(stage.last("CMD"))
    found = refused(arguments)
    role = " ".join(arguments)
    for kind, words in (
        ("ingest", "serve"),
        ("worker", "worker (text|audio|visual)"),
        ("fusion", "worker fuse"),
    ):
        if target.startswith(kind) and not re.search(rf"{words}$", role):
            found.append(f"image {target} cannot run {role!r}")
    if user := stage.last("USER"):
        found += (
            [f"the image's user is {user}"] if not container.user.startswith(user.partition(":")[0]) else []
        )
    try:
        config = environment(container.environ, arguments)
    except SettingsError as error:
        return [*found, str(error)]
    http = config.ingest.port if "serve" in arguments else config.status.port
    found += [f"port {port} is not one that it serves" for port in container.ports if port != http]
    if "serve" in arguments:
        if config.ingest.host != "127.0.0.1" and not config.ingest.token:
            found.append("the ingest is open to the network without a token")
    if container.probe_paths and not http:
        found.append("it serves no HTTP that a probe could ask")
    found += [f"it has no {path}" for path in container.probe_paths if path not in routes]
    for command in container.probe_commands:
        found += probe_problems(command, http, routes, stage)
    return found


def probe_problems(command: list[str], port: int, routes: set[str], stage: Stage) -> list[str]:
    """What is wrong with a health check: a program that is not in the image, or a path that nobody serves."""
    found = []
    if command[:2] == ["python", "-c"]:
        compile(command[2], "probe", "exec")
        for asked, path in re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", command[2]):
            if int(asked) != port or path not in routes:
                found.append(f"its probe asks {asked}{path}")
    else:
        copied = " ".join(value for key, value in stage.instructions if key == "COPY")
        script = command[1].removeprefix("/app/")
        if script not in copied or not (ROOT / script).is_file():
            found.append(f"its probe runs {script}, which is not in the image")
    return found


def refused(arguments: list[str]) -> list[str]:
    """Why the CLI refuses a command line, or a settings file of it is not in the image; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("cmath-stream", list(arguments))
    config = context.params.get("config")
    found = []
    if config is not None and not (ROOT / Path(config).relative_to("/app")).is_file():
        found.append(f"there is no {config} in the image")
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return found


def environment(environ: Mapping[str, str | None], arguments: list[str]) -> Settings:
    """The settings that a role gets. Raises SettingsError for a variable that no setting has."""
    file = arguments[arguments.index("--config") + 1] if "--config" in arguments else None
    path = ROOT / Path(file).relative_to("/app") if file else None
    return settings.load(
        Settings, path, {key: _GIVEN if value is None else value for key, value in environ.items()}
    )


def is_pinned(image: str) -> bool:
    """Whether an image has a version with at least two dots, or a digest."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return bool(re.match(r"v?\d+\.\d+\.\d+", tag)) or "@sha256:" in image


def exec_form(text: str) -> list[str]:
    """The words of a CMD, ENTRYPOINT or HEALTHCHECK."""
    words: list[str] = json.loads(text) if text.startswith("[") else shlex.split(text)
    return words


TARGETS = stages((ROOT / "Dockerfile").read_text("utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ROUTES = {"/healthz", "/readyz", "/metrics"}  # that a probe or Prometheus may ask the ingest for
