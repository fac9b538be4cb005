"""Garbage that refers to itself, in a process that lives for months.

Connections are such garbage: a participant who leaves is 400 objects in cycles, 0.1 MB with what their codec
and encryption hold. Python looks for cycles once 80,000 objects more were made than freed, 200 participants
later, and then looks at everything that was ever imported: 100,000 objects, 50 ms in which nobody is heard.
"""

from __future__ import annotations

import gc

_FULL_AFTER = 2  # looks at the younger ones (Python's own value: 10)


def keep_what_is_loaded() -> None:
    """To be called once, when a process is ready: what it holds by now is never looked at again.

    Looking then costs what came since, and can be done more often.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # nothing: until a first one of these, Python waits for a quarter of what it has just frozen
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_AFTER)
