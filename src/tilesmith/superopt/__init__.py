"""Superoptimization over µGraphs: trace, exhaustive search, verification, ranking. Starts without torch."""
