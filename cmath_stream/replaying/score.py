"""What a replay was right about, as a table, a line of JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console

from cmath_stream.answers import Answer
from cmath_stream.training import gold


class Scoring:
    """The labels of one file."""

    def __init__(self, path: Path) -> None:
        """Read before the work, so that what is wrong with them is said at once. Raises CmathStreamError."""
        self._path = path
        self._gold = gold.read(path)

    def tell(self, answers: Sequence[Answer], picture: Path | None, to: TextIO) -> None:
        """Print the figures that `eval` prints, the last line JSON, and draw who was taken for what.

        Raises DataError where labels and answers do not belong together.
        """
        from cmath_stream import confusion  # brings matplotlib, and tasks torch
        from cmath_stream.training.tasks import figures, show

        scored = gold.score(self._gold, answers, self._path.name)
        result = figures("replay", scored.judged)
        console = Console(file=to)
        show(result, console)
        for count, what in (
            (scored.missed, "labelled utterances have no answer and do not count"),
            (scored.uncounted, "labels have no counterpart in the model, or are none, and do not count"),
        ):
            if count:
                print(f"{count} {what}", file=to)
        if picture is not None:
            judged = scored.judged
            said = judged.probabilities.argmax(axis=1)
            table = confusion.counts(judged.label, said, len(judged.labels))
            title = f"{judged.checkpoint} beside {self._path.name}, {len(said)} utterances"
            confusion.draw(table, judged.labels, title, picture)
            print(f"confusion matrix in {picture}", file=to)
        counts = {"missed": scored.missed, "uncounted": scored.uncounted}
        print(json.dumps(result | counts), file=to)
