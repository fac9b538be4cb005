"""How CMATH gets its weights and its figures: offline. Nothing that runs live imports this package."""
