"""A token of another cluster lies here: who shows it to a cluster without tokens would get no worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ray_cluster import LocalCluster

USED = """
import os
import sys

from tilesmith.bench.ray import reach

with reach.connected(sys.argv[1]) as ray:
    print(os.environ["RAY_AUTH_MODE"], ray.get(ray.remote(lambda: 5).remote(), timeout=40))
"""


def test_a_token_that_nobody_asks_for_is_not_shown(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with LocalCluster() as cluster:
        cluster.add("worker", cpus=1)
        done = subprocess.run(
            [sys.executable, "-c", USED, cluster.address],
            env={**environment, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.stdout == "disabled 5\n", done.stderr[-2000:]
