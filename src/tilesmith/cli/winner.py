"""The winner's file: whether it can be written, before the search; written whole or not at all, after it."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tilesmith.core.errors import OptionError
from tilesmith.core.facts import Derivation
from tilesmith.core.seams import Journal
from tilesmith.core.trial import Trial


def place(out: str, problem_name: str, problem_path: str) -> Path:
    """The file to write. Raises `OptionError` where it cannot be written."""
    path = Path(out or re.sub(r"[^\w.-]", "_", problem_name) + "_tilesmith.py").resolve()
    folder = path.parent
    if not folder.is_dir():
        raise OptionError(f"--out is {str(path)!r}, and its folder does not exist; make it, or name another file")
    if path.exists() and not path.is_file():
        raise OptionError(f"--out is {str(path)!r}, which is no file; name a file")
    problem = Path(problem_path).resolve()
    if path in {problem, problem / "problem.py", problem / "problem.toml"}:
        raise OptionError(f"--out is {str(path)!r}, which is the problem itself; name another file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"--out is {str(path)!r}, and its folder cannot be written; name another file")
    return path


def write(path: Path, text: str) -> None:
    """Replace the file as one step: whoever reads it sees the old one or the new one, whatever happens between."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes its place when the block has ended well. Raises `OptionError` for a folder in
    which nothing can be made.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = os.strerror(error.errno or 0)
        raise OptionError(f"--out is {str(path)!r}, and nothing can be written there ({why}); name another") from None
    draft = Path(name)
    try:
        yield draft
        os.fsync(handle)
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    finally:
        os.close(handle)


def draw(line: Sequence[Trial], journal: Journal, out: Path) -> Path | None:
    """The µGraph that the last of these trials descends from, as a drawing beside its file; None where it has none."""
    known = {derivation.key: derivation for derivation in journal.facts(Derivation)}
    found = next((known[trial.candidate.id] for trial in line if trial.candidate.id in known), None)
    if found is None:
        return None
    from tilesmith.superopt.draw import svg
    from tilesmith.superopt.schema import from_json
    from tilesmith.superopt.threads import fused

    path = out.with_suffix(".svg")
    write(path, svg(fused(from_json(found.graph))))
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
