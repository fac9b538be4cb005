"""What is promised of one server, by a cluster of three: the same tests, over another URL."""

from __future__ import annotations

import pytest

from tests.cluster import RedisCluster


@pytest.fixture
def redis_url(cluster: RedisCluster) -> str:
    """URL of the cluster, for every test in this folder."""
    return cluster.url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Together they take a minute."""
    for item in items:
        if "on_cluster" in item.path.parts:
            item.add_marker(pytest.mark.slow)
