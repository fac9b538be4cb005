"""Events of a conversation as files that other programs open, and back again. See `formats`."""
