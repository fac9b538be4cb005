"""`-` among the inputs: what comes in on standard input, kept in a file while it is replayed.

Half of the formats are read from the end too. It lies in a folder of this user's own, which goes at the end.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from realtime.errors import CmathStreamError

NAME = "stdin"
_BOM = b"\xef\xbb\xbf"


@contextmanager
def spooled(inputs: Sequence[str], stream: BinaryIO) -> Iterator[list[str]]:
    """The inputs with a path in the place of `-`; what begins with `{` is dialogues, all else a recording."""
    if "-" not in inputs:
        yield list(inputs)
        return
    with tempfile.TemporaryDirectory(prefix="cmath-stream-") as folder:
        path = Path(folder) / NAME
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file)
        with path.open("rb") as file:
            written = file.read(4096).removeprefix(_BOM).lstrip().startswith(b"{")
        if written:
            path = path.rename(path.with_suffix(".jsonl"))
        try:
            yield [str(path) if each == "-" else each for each in inputs]
        except CmathStreamError as error:
            raise type(error)(str(error).replace(str(path), "standard input")) from None
