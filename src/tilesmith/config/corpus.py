"""Reads a corpus of candidates whose verdicts are known: cheats to be stopped, honest kernels not to be refused."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tilesmith.core.errors import OptionError

HONEST = "honest"


@dataclass(frozen=True, slots=True)
class Case:
    """One candidate, and the verdicts that it may get."""

    folder: Path
    file: str
    problem: str
    kind: str
    """The class of the trick; "honest" for what must not be refused."""
    expected: tuple[str, ...]
    needs: str
    """"gpu" or "offline" where only a bench with or without a GPU can tell; on the other any verdict will do."""
    why: str
    prefix: str = ""
    suffix: str = ""
    encoding: str = "utf-8"
    pad_bytes: int = 0

    @property
    def name(self) -> str:
        return self.file.removesuffix(".py").removeprefix("cheats/")

    @property
    def honest(self) -> bool:
        return self.kind == HONEST

    @property
    def problem_folder(self) -> Path:
        return self.folder / "problems" / self.problem

    def content(self) -> bytes:
        """What to write to the candidate's file: the file here, with the prefix, suffix and padding of its entry."""
        text = self.prefix + (self.folder / self.file).read_text(encoding="utf-8") + self.suffix
        content = text.encode(self.encoding)
        line = b"# the padding of a source that is far too long to be one\n"
        return content + line * -(-max(0, self.pad_bytes - len(content)) // len(line))


def load_corpus(folder: Path) -> tuple[Case, ...]:
    """Every case of `corpus.toml` in a folder, in its order. Raises `OptionError` where there is none to read."""
    try:
        rows = tomllib.loads((folder / "corpus.toml").read_text(encoding="utf-8"))["case"]
        return tuple(Case(folder, kind=row.pop("class"), expected=tuple(row.pop("expected")), **row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{folder} holds no corpus that can be read ({error}); name one with --corpus.") from error
