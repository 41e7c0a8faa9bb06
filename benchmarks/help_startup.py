"""How long does `tilesmith --help` take?

Limit: 0.3 seconds. Whoever asks for help waits for nothing but the interpreter and the parser of the command line: no
room is imported before a command runs, least of all torch. The ratio to `python -c pass` is what tells one machine's
slowness from ours.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from lib.answer import answer, parser

LIMIT_S = 0.3
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "tilesmith.cli", "--help"],
}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=15, help="how often each is run")
    given = options.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(given.rounds + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - began)
    # The first round reads files from the disk.
    medians = {name: median(each[1:]) for name, each in times.items()}
    holds = medians["help"] <= LIMIT_S
    document = {
        "help_s": medians["help"],
        "python_s": medians["python"],
        "ratio": medians["help"] / medians["python"],
        "fastest_help_s": min(times["help"]),
        "limit_s": LIMIT_S,
        "holds": holds,
    }
    answer(document, given.json)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
