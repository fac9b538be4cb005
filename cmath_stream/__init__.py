"""Features in, emotions out: CMATH, its window and engine, and the programs that join all parts."""
