"""What a process has loaded is not looked through again and again; who left is soon forgotten."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import gc, json, sys, time
import cmath_stream.roles
from realtime.garbage import keep_what_is_loaded

class Gone:
    count = 0
    def __del__(self):
        Gone.count += 1

def circle(size):
    ring = [[] for _ in range(size)]
    for one, other in zip(ring, ring[1:] + ring[:1]):
        one.append(other)
    ring[0].append(Gone())
    return ring

def look():
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began

before = min(look() for _ in range(3))
if sys.argv[1] == "kept":
    keep_what_is_loaded()
old = []
for _ in range(150):
    old.append(circle(400))  # as a participant's connection is
    if len(old) > 20:
        old.pop(0)
print(json.dumps({"gone": Gone.count, "before": before, "after": min(look() for _ in range(3))}))
"""


def _run(how: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def test_participants_who_left_are_forgotten_and_looking_for_them_is_cheap() -> None:
    kept, left_alone = _run("kept"), _run("left alone")
    assert kept["gone"] > 60  # of 130 that have left
    assert kept["gone"] > left_alone["gone"]
    assert kept["after"] < kept["before"] / 3
