"""The page as a browser fetches it: types, caching, and a policy that its own files keep to."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest

from realtime.page import url_of
from realtime.server import IngestConfig
from tests.calls import serving
from tests.fake_rooms import FakeRooms

WEB = Path(str(files("realtime").joinpath("web")))
FILES = sorted(path.name for path in WEB.iterdir())


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_every_file_is_served_for_what_it_is(http: aiohttp.ClientSession) -> None:
    types = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    async with serving(FakeRooms(), IngestConfig(token="a-token-of-sixteen-or-more")) as url:  # needs none
        for path, name in [("/", "index.html"), *((f"/web/{name}", name) for name in FILES)]:
            async with http.get(url + path) as response:
                assert response.status == 200
                assert response.content_type == types[name.partition(".")[2]]
                assert await response.read() == (WEB / name).read_bytes()
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy and "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Cache-Control"] == "no-cache"
                tag = {"If-None-Match": response.headers["ETag"]}
            async with http.get(url + path, headers=tag) as response:
                assert (response.status, await response.read()) == (304, b"")
        for path in ("/web/", "/web/..%2fpage.py", "/web/nothing.js"):
            async with http.get(url + path) as response:
                assert response.status == 404


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_it_needs_another_host_or_a_weaker_policy(name: str) -> None:
    text = (WEB / name).read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text)
    if name.endswith(".html"):
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", text)
    if name.endswith(".js"):
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in FILES


def test_every_element_that_is_looked_up_exists() -> None:
    page = (WEB / "index.html").read_text("utf-8")
    present = set(re.findall(r'\sid="([^"]+)"', page))
    for name in FILES:
        if name.endswith(".js"):
            asked = set(re.findall(r'byId\("([^"]+)"\)', (WEB / name).read_text("utf-8")))
            assert asked <= present, name


def test_the_wheel_has_the_page() -> None:
    built = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert "realtime" in built["targets"]["wheel"]["packages"]  # with all files in it: nothing is excluded
    assert "exclude" not in built["targets"]["wheel"]


@pytest.mark.parametrize(
    ("host", "token", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8080/"),
        ("0.0.0.0", "a/b+c", "http://localhost:8080/#token=a%2Fb%2Bc"),
        ("::1", None, "http://[::1]:8080/"),
        ("emotions.example", "t", "http://emotions.example:8080/#token=t"),
    ],
)
def test_where_the_page_is(host: str, token: str | None, url: str) -> None:
    assert url_of(host, 8080, token) == url
