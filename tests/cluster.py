"""A real Redis Cluster on loopback: a process a node, joined by the commands that any operator gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from realtime.redis_server import RedisServer, _free_port

PRIMARIES = 3
FORM_S = 10.0
NODE_TIMEOUT_MS = 1000  # after such a silence a node counts as failed


class Node(RedisServer):
    """One server of a cluster, with a port for its fellows too."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.bus_port = 0

    def _options(self, port: int) -> dict[str, str]:
        self.bus_port = self.bus_port or _free_port()
        return super()._options(port) | {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "repl-diskless-sync-delay": "0",
        }

    def kill(self) -> None:
        """As a crash of its machine: SIGKILL."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()

    def ask(self, *command: str | int) -> Any:
        """The reply to a command."""
        with redis.Redis(port=self.port, protocol=2, decode_responses=True) as client:
            return client.execute_command(*command)


class RedisCluster:
    """Three primaries, which share the slots evenly, and replicas of the first of them."""

    def __init__(self, folder: Path, replicas: int = 0) -> None:
        self.nodes = [Node(folder / f"node-{n}") for n in range(PRIMARIES + replicas)]
        self.primaries = self.nodes[:PRIMARIES]
        self.replicas = self.nodes[PRIMARIES:]

    @property
    def url(self) -> str:
        """By which clients find it: the last primary, which no test kills."""
        return f"redis+cluster://127.0.0.1:{self.primaries[-1].port}"

    def start(self) -> None:
        """Start the nodes and join them; done when all of them say that the cluster is whole."""
        for node in self.nodes:
            node.start()
        for n, node in enumerate(self.primaries):
            node.ask("CLUSTER ADDSLOTSRANGE", _first_slot(n), _first_slot(n + 1) - 1)
            node.ask("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus_port)
        wait_for(lambda: all(map(self._is_whole_to, self.nodes)))
        for node in self.replicas:
            node.ask("CLUSTER REPLICATE", self.primaries[0].ask("CLUSTER MYID"))
        wait_for(lambda: all(node.ask("INFO").get("master_link_status") == "up" for node in self.replicas))

    def close(self) -> None:
        """End every process by its own id."""
        for node in self.nodes:
            node.close()

    def owner(self, key: str) -> Node:
        """The primary of a key, as they were when it started."""
        slot = key_slot(key.encode())
        return self.primaries[max(n for n in range(PRIMARIES) if _first_slot(n) <= slot)]

    def _is_whole_to(self, node: Node) -> bool:
        info = node.ask("CLUSTER INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes)


def _first_slot(primary: int) -> int:
    return REDIS_CLUSTER_HASH_SLOTS * primary // PRIMARIES


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something that servers do among themselves has happened."""
    end_s = time.monotonic() + FORM_S
    while not condition():
        assert time.monotonic() < end_s, "the cluster does not come together"
        time.sleep(0.02)


@contextmanager
def running_cluster(folder: Path, replicas: int = 0) -> Iterator[RedisCluster]:
    """A cluster for so long."""
    cluster = RedisCluster(folder, replicas)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
