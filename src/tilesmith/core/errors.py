"""What the user can mend. Every one ends a command with exit status 2 and its message, never with a traceback.

    TilesmithError
    ├── ProblemError       the problem file or folder
    ├── OptionError        a flag, a configuration key, an argument
    ├── MachineError       this machine: no GPU, no compiler, a full disk
    └── JournalError       the journal: locked, corrupt, from another version

A fault of a *candidate* is never an exception: it is a `Verdict`.
"""

from __future__ import annotations


class TilesmithError(Exception):
    """The message is one sentence: what is wrong, where, and what to do."""


class ProblemError(TilesmithError):
    """The problem cannot be used as it is."""


class OptionError(TilesmithError):
    """An option or a configuration key is unknown or has a value that cannot be used."""


class MachineError(TilesmithError):
    """This machine lacks something that the command needs."""


class JournalError(TilesmithError):
    """The journal cannot be read or written."""
