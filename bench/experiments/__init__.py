"""The experiments behind docs/RESULTS.md: each module makes one raw result file under docs/results/."""
