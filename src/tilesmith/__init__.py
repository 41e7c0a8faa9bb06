"""Tilesmith: the fastest GPU kernel for a tensor program that can be shown to be correct."""

__version__ = "0.1.0"
