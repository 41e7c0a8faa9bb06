"""Which of the published structures does the search find for the six programs?

Expected: all. Prints the rows of docs/published-structures.md: what was published for a program, the cheapest µGraph
with that structure, the hash of its form alone (what its kernels compute, whatever the tiles), and its launches.
"""

from __future__ import annotations

import sys

from lib.answer import answer, parser
from tilesmith.core.graph_hash import graph_hash
from tilesmith.superopt.structures import PUBLISHED, examples, form_id, kernels


def main() -> int:
    given = parser(__doc__).parse_args()
    rows = []
    for structure in PUBLISHED:
        _, found = examples(structure)
        row: dict[str, object] = {"program": structure.program, "structure": structure.what, "found": len(found)}
        if found:
            cheapest = found[0]
            row |= {
                "form": form_id(cheapest),
                "graph": graph_hash(cheapest),
                "launches": "; ".join(
                    f"{'×'.join(map(str, kernel.grid)) or '1'} blocks, {kernel.loop} iterations"
                    for kernel in kernels(cheapest)
                ),
                "within": f"{structure.kernels} kernel{'s' * (structure.kernels > 1)}, {structure.block_ops} operators",
            }
        rows.append(row)
    document = {"holds": all(row["found"] for row in rows), "structures": rows}
    answer(document, given.json)
    if not given.json:
        for row in rows:
            print("| " + " | ".join(str(row.get(k, "–")) for k in COLUMNS) + " |")
    return 0 if document["holds"] else 1


COLUMNS = ("program", "structure", "within", "found", "launches", "form", "graph")

if __name__ == "__main__":
    sys.exit(main())
