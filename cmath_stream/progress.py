"""How far a replay is, on a terminal: a bar, the rate, the time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Rate(ProgressColumn):
    """How much of what the task's field `unit` says is done in a second; nothing where it is None."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None or task.fields["unit"] is None:
            return Text("")
        return Text(f"{speed:.0f}{task.fields['unit']}", style="progress.data.speed")


def bars(*, quiet: bool = False) -> Progress:
    """On standard error where that is a terminal, gone when it is done; `quiet` = not shown.

    Standard output stays as it is.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # else rich would send events to the terminal that belong into a pipe
        disable=quiet or not console.is_terminal,
    )
