"""The commands: the only room that names concrete classes, and the only one that writes to a terminal."""

from tilesmith.cli.entry import main

__all__ = ["main"]
