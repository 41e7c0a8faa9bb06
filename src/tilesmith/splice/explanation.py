"""What became of a module: what was replaced, by what, with what evidence, and what stays as it was, and why."""

from __future__ import annotations

from dataclasses import dataclass

from tilesmith.splice.found import Found
from tilesmith.splice.whole import Whole


@dataclass(frozen=True, slots=True)
class PartReport:
    """One part, with those that are the same program."""

    calls: tuple[str, ...]
    """Of PyTorch, in order, such as "aten.linear.default"."""
    inputs: str
    """Such as "fp32 2x16x32, fp32 32"."""
    count: int
    """How often it stands in the graph."""
    found: Found

    @property
    def replaced(self) -> bool:
        return self.found.source is not None

    def __str__(self) -> str:
        return self.told("")

    def told(self, known: str) -> str:
        """With the reason, unless it is known already."""
        times = f", {self.count} times" if self.count > 1 else ""
        what = f"{', '.join(call.removeprefix('aten.') for call in self.calls)} of {self.inputs}{times}"
        held = " (from the cache)" if self.found.cached else ""
        if self.found.evidence is None:
            return f"kept      {what}" + (f"\n  {self.found.reason}{held}" if self.found.reason != known else "")
        told = str(self.found.evidence).replace("\n", "\n  ")
        return f"replaced  {what}\n  by kernel {self.found.id}{held}\n  {told}"


@dataclass(frozen=True, slots=True)
class GraphReport:
    """One graph as it was captured: its inputs' shapes, dtypes, strides and device are guarded."""

    inputs: str
    parts: tuple[PartReport, ...] = ()
    rest: tuple[str, ...] = ()
    """Calls that are in no part."""
    reason: str = ""
    """Why all of it stays as it is."""
    search_seconds: float = 0.0
    whole: Whole | None = None
    """Where kernels were timed on a GPU, and nothing else compiles what is around them."""

    @property
    def replaced(self) -> int:
        """How many parts, each as often as it stands in the graph."""
        return sum(part.count for part in self.parts if part.replaced)

    def __str__(self) -> str:
        count = sum(part.count for part in self.parts)
        head = f"graph of {self.inputs}: {self.replaced} of {count} parts replaced"
        searched = f"; searched for {self.search_seconds:.0f} s" if self.search_seconds else ""
        lines = [f"{head}{searched}"]
        if self.reason:
            lines.append(f"stays as it is: {self.reason}")
        if self.whole is not None:
            lines.append(f"as a whole: {self.whole}")
        lines += [part.told(self.reason) for part in self.parts]
        if self.rest:
            lines.append(f"stays PyTorch's: {', '.join(self.rest)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Explanation:
    """All graphs so far, in the order of their capture, and what was remarked on the way."""

    graphs: tuple[GraphReport, ...]
    notes: tuple[str, ...] = ()

    @property
    def replaced(self) -> int:
        return sum(graph.replaced for graph in self.graphs)

    def __str__(self) -> str:
        if not self.graphs and not self.notes:
            return "nothing was captured yet: call the module first"
        return "\n\n".join(str(graph) for graph in self.graphs) + "".join(f"\nnote: {note}" for note in self.notes)
