"""Remembers runs in one SQLite file: an append-only log of events, and every source once."""

from tilesmith.journal.garbage import Garbage
from tilesmith.journal.store import Run, RunOptions, RunSummary, Store, open_store

__all__ = ["Garbage", "Run", "RunOptions", "RunSummary", "Store", "open_store"]
