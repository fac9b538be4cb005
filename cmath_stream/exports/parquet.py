"""Parquet: a row an event, the columns of `columns` with their types. Needs pyarrow, the extra `analysis`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from cmath_stream.events import SCHEMA, Event
from cmath_stream.exports.about import About
from cmath_stream.exports.canon import checked, decoded
from cmath_stream.exports.columns import REST, as_kind, columns_for, columns_named
from realtime.errors import MediaError, SettingsError

_ROWS_AT_ONCE = 2000  # events in memory: a few megabytes


def write(events: Iterable[Event], file: BinaryIO, _: About) -> None:
    """Write events, some at a time; they are walked through twice. Raises SettingsError without pyarrow."""
    _require()
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    columns = columns_for(events)
    types = {
        str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_(),
    }  # fmt: skip
    fields = [pyarrow.field(name, types[kind]) for name, kind in columns.kinds.items()]
    schema = pyarrow.schema(fields, metadata={"schema": SCHEMA})
    rows = (columns.cells(event) for event in events)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))


def read(path: Path) -> Iterator[Event]:
    """Events, some in memory at a time. Raises MediaError, naming the row; SettingsError without pyarrow."""
    _require()
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as table:
            columns = columns_named(table.schema_arrow.names)
            if columns is None:
                raise MediaError(f"{path}: no table of events by cmath-stream: its columns are others")
            number = 0
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=list(columns.kinds)):
                for row in batch.to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    cells = {n: as_kind(v, columns.kinds[n]) for n, v in row.items() if v is not None}
                    left = decoded(cells.pop(REST, "{}"), f"{where}, {REST}")
                    if not isinstance(left, dict):
                        raise MediaError(f"{where}, {REST}: not a JSON object")
                    yield checked(columns.event(cells, left), where)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise MediaError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from None


def _require() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise SettingsError("Parquet needs pyarrow: pip install 'cmath-stream[analysis]'")
