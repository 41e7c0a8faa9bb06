"""Remembers runs in one SQLite file: an append-only log of events, and every source once."""

from tilesmith.journal.store import Run, RunOptions, RunSummary, Store, open_store

__all__ = ["Run", "RunOptions", "RunSummary", "Store", "open_store"]
