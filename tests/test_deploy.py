"""What is deployed fits the program: images, roles, commands, settings, probes, ports, streams and metrics.

Nothing is built or started here: files are parsed and held against the code (the Dockerfile: test_images).
What is broken on purpose shows that each check can fail.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from cmath_stream import roles, service
from cmath_stream.config import Settings, load_settings
from deploy.at_work import why_not
from realtime import telemetry
from realtime.messages import MODALITIES
from realtime.redis_bus import RedisConfig, connect
from realtime.redis_reader import GroupReader
from realtime.server import IngestConfig, make_app
from tests.deployment import (
    OURS,
    PROJECT,
    ROOT,
    ROUTES,
    TARGETS,
    Container,
    containers_of_compose,
    containers_of_kubernetes,
    documents,
    is_literal,
    merged,
    probe_problems,
    problems,
    refused,
)
from tests.fake_rooms import FakeRooms

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = documents(DEPLOY / "compose.yaml")[0]
BASE = [each for path in sorted((KUBERNETES / "base").glob("*.yaml")) for each in documents(path)]
DEPLOYMENTS = {each["metadata"]["name"]: each for each in BASE if each["kind"] == "Deployment"}
SCALED = [each for path in sorted((KUBERNETES / "keda").glob("*.yaml")) for each in documents(path)]


def containers() -> Iterator[Container]:
    yield from containers_of_compose(COMPOSE)
    for deployment in DEPLOYMENTS.values():
        yield from containers_of_kubernetes(deployment)
    for patch in gpu_patches():
        yield from containers_of_kubernetes(merged(DEPLOYMENTS[patch["metadata"]["name"]], patch))


def gpu_patches() -> list[dict[str, Any]]:
    listed = documents(KUBERNETES / "gpu" / "kustomization.yaml")[0]["patches"]
    return [document for patch in listed for document in documents(KUBERNETES / "gpu" / patch["path"])]


# ---- containers ------------------------------------------------------------------------------------


def test_every_container_fits_the_program() -> None:
    found = list(containers())
    assert [line for container in found for line in problems(container, TARGETS, ROUTES)] == []
    ours = [each for each in found if each.image.startswith(OURS)]
    assert {each.image.rpartition(":")[2] for each in ours} == {PROJECT["version"]}
    told = {" ".join((each.arguments or [])[2:]) for each in ours}
    assert told == {"serve", *(f"worker {role}" for role in (*MODALITIES, "fuse"))}


def test_the_compose_file_builds_what_it_names() -> None:
    for name, service_ in COMPOSE["services"].items():
        if service_["image"].startswith(OURS):
            target = service_["build"]["target"]
            assert service_["image"] == f"{OURS}{target}:{PROJECT['version']}", name
        for volume in service_.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert set(service_.get("depends_on", [])) <= set(COMPOSE["services"])


def test_the_probes_ask_for_what_the_ingest_serves() -> None:
    app = make_app(FakeRooms(), IngestConfig())
    assert ROUTES <= {route.resource.canonical for route in app.router.routes() if route.resource}


def test_a_stop_leaves_time_to_drain() -> None:
    config = load_settings(ROOT / "configs" / "live.toml")
    ingest_s = config.ingest.shutdown_s + roles._SHUTDOWN_S + roles._FLUSH_S
    for container in containers():
        if container.image.startswith(OURS):
            assert container.grace_s > 1.5 * max(ingest_s, config.worker.drain_s, service._DRAIN_S), (
                container.where
            )


GOOD = Container(
    where="x", image=f"{OURS}worker:0.1.0", arguments=["worker", "text"], environ={}, user="10001",
    hardened=True, limited=True, grace_s=30,
)  # fmt: skip


def test_a_container_without_fault_has_no_problem() -> None:
    assert problems(GOOD, TARGETS, ROUTES) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (replace(GOOD, image=f"{OURS}worker:latest"), "no exact version"),
        (replace(GOOD, image="redis"), "no exact version"),
        (replace(GOOD, image="redis:7"), "no exact version"),
        (replace(GOOD, image=f"{OURS}wroker:0.1.0"), "no target wroker"),
        (replace(GOOD, image=f"{OURS}ingest:0.1.0"), "cannot run"),
        (replace(GOOD, arguments=["worker", "fuse"]), "cannot run"),
        (replace(GOOD, arguments=["--config", "/app/configs/alive.toml", "worker", "text"]), "alive.toml"),
        (replace(GOOD, user="0:0"), "root"),
        (replace(GOOD, user=""), "root"),
        (replace(GOOD, user="1000"), "the image's user"),
        (replace(GOOD, hardened=False), "read-only"),
        (replace(GOOD, limited=False), "memory"),
        (replace(GOOD, written=["TOKEN"]), "a secret"),
        (replace(GOOD, environ={"CMATH_STREAM__INGEST__PROT": "8080"}), "ingest.prot"),
        (replace(GOOD, environ={"CMATH_STREAM__INGEST__PORT": "eighty"}), "ingest.port"),
        (replace(GOOD, environ={"CMATH_STREAM__INGEST__PORT": "9000"}, ports=[8080]), "port 8080"),
        (replace(GOOD, probe_paths=["/healthz"]), "serves no HTTP"),
        (replace(GOOD, probe_commands=[["python", "/app/deploy/alive.py"]]), "not in the image"),
        (replace(GOOD, image=f"{OURS}ingest:0.1.0", arguments=["serve"], probe_paths=["/health"]), "/health"),
        (
            replace(
                GOOD, image=f"{OURS}ingest:0.1.0", arguments=["serve"],
                environ={"CMATH_STREAM__INGEST__HOST": "0.0.0.0"},
            ),
            "without a token",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_found(broken: Container, said: str) -> None:
    assert said in " ".join(problems(broken, TARGETS, ROUTES))


@pytest.mark.parametrize(
    "arguments", [["work", "text"], ["worker", "smell"], ["serve", "--port", "1"], ["worker"]]
)
def test_a_command_that_the_program_does_not_know_is_refused(arguments: list[str]) -> None:
    with pytest.raises(Exception, match=r"No such|not one of|Missing|is not"):
        refused(arguments)


def test_a_probe_of_another_port_or_path_is_found() -> None:
    asks = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8081/readyz')"
    assert probe_problems(["python", "-c", asks], 8080, ROUTES, TARGETS["ingest"])
    assert not probe_problems(["python", "-c", asks], 8081, ROUTES, TARGETS["ingest"])


# ---- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "literal"),
    [
        ("TOKEN", "hunter2hunter2hunter2", True),
        ("TOKEN", "${TOKEN:-hunter2}", True),
        ("TOKEN", "${TOKEN}", True),  # Compose would take an empty one
        ("TOKEN", "${TOKEN:?set it}", False),
        ("REDIS_URL", "redis://:hunter2@redis:6379/0", True),
        ("REDIS_URL", "redis://:$(REDIS_PASSWORD)@$(REDIS_ADDRESS)/0", False),
        ("REDIS_URL", "redis://redis:6379/0", False),
    ],
)
def test_a_secret_that_is_written_down_is_told(name: str, value: str, literal: bool) -> None:
    assert is_literal(name, value) is literal


def test_the_secret_holds_no_value_and_all_keys_that_are_asked_for() -> None:
    secret = documents(KUBERNETES / "secret.template.yaml")[0]
    assert set(secret["stringData"].values()) == {""}
    asked = re.findall(r"name: cmath-stream, key: ([\w-]+)", _text(KUBERNETES))
    assert set(asked) == set(secret["stringData"])
    assert "secret.template.yaml" not in documents(KUBERNETES / "base" / "kustomization.yaml")[0]["resources"]


def _text(folder: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(folder.rglob("*.yaml")))


# ---- the cluster -----------------------------------------------------------------------------------


def test_kustomizations_name_files_that_exist() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        listed = documents(path)[0]
        named = [*listed.get("resources", []), *listed.get("components", [])]
        named += [patch["path"] for patch in listed.get("patches", [])]
        assert named and all((path.parent / each).exists() for each in named), path
        beside = {each.name for each in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert beside <= set(named), f"{path} leaves one out"
        for image in listed.get("images", []):
            assert image["name"].removeprefix(OURS) in TARGETS


def test_selectors_select_what_there_is() -> None:
    for deployment in DEPLOYMENTS.values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
    all_labels = [each["spec"]["template"]["metadata"]["labels"] for each in DEPLOYMENTS.values()]
    budgets = [
        each["spec"]["selector"]["matchLabels"] for each in BASE if each["kind"] == "PodDisruptionBudget"
    ]
    assert sorted(map(str, budgets)) == sorted(map(str, all_labels))
    for each in BASE:
        if each["kind"] == "NetworkPolicy":
            chosen = each["spec"]["podSelector"].get("matchLabels")
            assert chosen is None or chosen in all_labels
        if each["kind"] == "Service":
            assert each["spec"]["selector"] in all_labels
            assert {port["targetPort"] for port in each["spec"]["ports"]} == {Settings().ingest.port}


def scaling_problems(scaled: dict[str, Any], config: RedisConfig) -> list[str]:
    """What is wrong with a ScaledObject: it owes one trigger to each shard, by the group of its role."""
    name, found = scaled["metadata"]["name"], []
    if scaled["spec"]["scaleTargetRef"]["name"] not in DEPLOYMENTS:
        found.append("no such Deployment")
    group = name.removeprefix("worker-")
    stream = config.keys.inbox if group == "fuse" else config.keys.segments
    if group not in (*MODALITIES, "fuse"):
        found.append(f"no role reads as {group}")
    triggers = [each["metadata"] for each in scaled["spec"]["triggers"]]
    if {each["consumerGroup"] for each in triggers} != {group}:
        found.append("another group")
    if sorted(each["stream"] for each in triggers) != [stream(shard) for shard in range(config.shards)]:
        found.append("other streams than the shards")
    if not all(int(each["lagCount"]) > 0 for each in triggers):
        found.append("no lag")
    if group == "fuse" and scaled["spec"]["maxReplicaCount"] > config.shards:
        found.append("more than shards to own")
    return found


def test_keda_watches_the_streams_and_groups_of_the_roles() -> None:
    config = load_settings(ROOT / "configs" / "live.toml").redis
    objects = [each for each in SCALED if each["kind"] == "ScaledObject"]
    assert {each["metadata"]["name"] for each in objects} == set(DEPLOYMENTS) - {"ingest"}
    for each in objects:
        assert scaling_problems(each, config) == []
        broken = yaml.safe_load(yaml.safe_dump(each).replace("work:", "jobs:"))
        assert scaling_problems(broken, config) == ["other streams than the shards"]
        assert scaling_problems(each, replace(config, shards=5))
        broken = yaml.safe_load(yaml.safe_dump(each).replace("consumerGroup: ", "consumerGroup: a"))
        assert scaling_problems(broken, config) == ["another group"]


def test_the_groups_are_those_that_the_roles_make() -> None:
    """As the code says it: the kind of stream and the group of every reader that is made."""
    made = set()
    for file in (ROOT / "cmath_stream").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "GroupReader":
                made.add(tuple(map(ast.unparse, node.args[2:4])))
    assert made == {("'segments'", "modality"), ("'inbox'", "'fuse'")}


# ---- what is watched -------------------------------------------------------------------------------


def exported() -> set[str]:
    """Names of series as Prometheus gets them."""
    endings = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_sum", "_count"),
        "gauge": ("",),
        "info": ("_info",),
    }
    return {each.name + end for each in telemetry.REGISTRY.collect() for end in endings[each.type]}


def unknown_metrics(expression: str) -> set[str]:
    return set(re.findall(r"\bcmath_stream_\w+", expression)) - exported()


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "cmath-stream.json").read_text("utf-8"))
    sources = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    charts = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in charts for target in panel["targets"]]
    assert not set().union(*map(unknown_metrics, expressions))
    assert {panel["datasource"]["uid"] for panel in charts} == {source["uid"] for source in sources}
    shown = " ".join(expressions)
    wanted = (
        "utterance_to_emotion endpoint_delay sessions_active sessions_rejected queue_lag dlq modality_missing"
    )
    for name in (*wanted.split(), "frames_dropped", "engine_fallback"):
        assert f"cmath_stream_{name}" in shown
    assert unknown_metrics("rate(cmath_stream_frames_droped_total[5m])") == {
        "cmath_stream_frames_droped_total"
    }


def test_prometheus_asks_the_ingest_and_the_fusion() -> None:
    jobs = documents(DEPLOY / "prometheus.yml")[0]["scrape_configs"]
    ingest, fuse = (COMPOSE["services"][name] for name in ("ingest", "fuse"))
    status = fuse["environment"]["CMATH_STREAM__STATUS__PORT"]
    assert fuse["ports"] == [f"127.0.0.1:{status}:{status}"]
    ports = ingest["environment"]["CMATH_STREAM__INGEST__PORT"], status
    assert [job["static_configs"][0]["targets"] for job in jobs] == [[f"127.0.0.1:{port}"] for port in ports]
    assert {job["metrics_path"] for job in jobs} <= ROUTES


# ---- the workers' health check ---------------------------------------------------------------------


async def test_a_worker_is_at_work_once_it_has_asked(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RedisConfig(url=redis_url, prefix="probe:")
    with redis.Redis.from_url(redis_url) as asking:
        assert "no worker me" in (why_not(asking, config, "me") or "")
        async with connect(config) as client:
            reader = GroupReader(client, config, "segments", "audio", "me")
            await reader.read(1, 0)
            assert why_not(asking, config, "me") is None
            assert "no worker you" in (why_not(asking, config, "you") or "")
            monkeypatch.setattr("deploy.at_work.SILENT_S", -1.0)
            assert "last seen" in (why_not(asking, config, "me") or "")
        for shard in range(config.shards):
            asking.delete(config.keys.segments(shard))
