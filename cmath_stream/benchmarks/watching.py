"""What the ingest says of itself, and what the system says of its process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from cmath_stream.benchmarks.figures import bucket_quantile
from realtime.errors import CmathStreamError, SettingsError

_NAMESPACE = "cmath_stream_"

Sample = tuple[str, frozenset[tuple[str, str]]]  # name without the namespace, labels


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ingest at one moment."""

    at_s: float  # monotonic
    cpu_s: float  # spent so far, by all threads
    core_s: float  # spent so far by everybody on its core, and stolen from it; 0 where it has none to itself
    rss_mb: float
    samples: Mapping[Sample, float]

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that carry at least these labels."""
        wanted = labels.items()
        return sum(value for (n, has), value in self.samples.items() if n == name and wanted <= has)


async def snapshot(http: str, pid: int, core: int | None) -> Snapshot:
    """Of the ingest at this URL. Raises CmathStreamError when it does not answer."""
    at_s, spent_s, resident_mb = time.monotonic(), cpu_s(pid), rss_mb(pid)
    core_s = 0.0 if core is None else busy_s(core)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
            async with client.get(f"{http}/metrics") as response:
                text = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise CmathStreamError(f"the ingest does not tell its metrics: {error or 'timeout'}") from None
    return Snapshot(at_s, spent_s, core_s, resident_mb, parse(text))


def parse(text: str) -> dict[Sample, float]:
    """Samples of ours in Prometheus text format."""
    return {
        (sample.name.removeprefix(_NAMESPACE), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(_NAMESPACE)
    }


def quantile_between(before: Snapshot, after: Snapshot, name: str, q: float) -> float | None:
    """Quantile of what a histogram without labels observed between two snapshots."""
    counts = {
        float(dict(labels)["le"]): value - before.samples.get((sample, labels), 0.0)
        for (sample, labels), value in after.samples.items()
        if sample == f"{name}_bucket"
    }
    bounds = sorted(counts)
    return bucket_quantile(bounds, [counts[bound] for bound in bounds], q)


# ---- the process -----------------------------------------------------------------------------------


def require_proc() -> None:
    """Raises SettingsError where the system does not tell what is asked here."""
    if not Path("/proc/self/stat").exists():
        raise SettingsError("the load is measured by /proc and processor affinity: it needs Linux")


def cpu_s(pid: int) -> float:
    """Processor seconds spent so far by all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()  # proc(5), from field 3
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime + stime


def busy_s(core: int | None) -> float:
    """Processor seconds spent so far by everybody on a core, or on all (None), and stolen from it."""
    name = "cpu" if core is None else f"cpu{core}"
    lines = (line.split() for line in Path("/proc/stat").read_text("ascii").splitlines())
    fields = next(fields for fields in lines if fields and fields[0] == name)
    user, nice, system, _, _, _, _, stolen = (int(field) for field in fields[1:9])  # proc(5)
    return (user + nice + system + stolen) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process, megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def core_kept_free() -> Iterator[int | None]:
    """A core that this process and all that it starts leave alone; None where there is but one."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None
        return
    core = max(allowed)
    os.sched_setaffinity(0, allowed - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


def pin(pid: int, core: int) -> None:
    """Put all threads of a process on one core; those that they start will stay there too."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
