"""What one program of a kernel does, read from its Triton IR."""

from __future__ import annotations

import re

_SIGNATURE = re.compile(r"^\s*tt\.func\s+public\s+@\S+?\((.*)\)(?:\s*->.*?)?\s*(?:attributes\s.*)?\{", re.MULTILINE)
_PARAMETER = re.compile(r'%([\w.$-]+): (!?[\w.]+(?:<[^%]*?>)?(?=[\s,)]|$))[^%]*?(?:loc\("([^"]+)"|(?=, %)|$)')


def parameters(ttir: str) -> tuple[tuple[str, str], ...] | None:
    """Names and types of the kernel's parameters that the compiler kept, in order; None where no kernel is found.

    A tensor descriptor of the host stands as itself and then as several integers of the same name.
    """
    found = _SIGNATURE.search(ttir)
    if found is None:
        return None
    return tuple((given or name, kind) for name, kind, given in _PARAMETER.findall(found.group(1)))
