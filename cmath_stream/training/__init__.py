"""How CMATH gets its weights and its figures: offline. Nothing imports this package at run time."""
