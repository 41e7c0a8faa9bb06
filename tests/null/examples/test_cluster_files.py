"""The files for clusters are what they claim to be: shell that parses, Kubernetes objects, flags that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tilesmith.bench.ray.nodes import MUST_AGREE
from tilesmith.cli.entry import main

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "examples" / "cluster"
FILES = sorted(CLUSTER.iterdir())


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_batch_scripts_are_shell(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/bin/bash\n")
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    # Slurm reads its own lines up to the first command only.
    command = next(number for number, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert all(number < command for number, line in enumerate(text.splitlines()) if line.startswith("#SBATCH"))
    assert "set -euo pipefail" in text


def test_a_batch_script_says_what_it_lacks() -> None:
    for name in ("ray.sbatch", "mpi.sbatch"):
        done = subprocess.run(
            ["bash", str(CLUSTER / name)], capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.returncode
        assert "TILESMITH_VENV: set it to the folder of the environment" in done.stderr


def objects() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text()))


def test_the_job_is_one_of_kuberay() -> None:
    job, claim = objects()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}, "as strings, as KubeRay wants them"
    pod = head["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "envFrom" in pod["containers"][0]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        spec = group["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False, "where candidates run there is nothing to steal"
        for container in spec["containers"]:
            assert "envFrom" not in container
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert all(isinstance(value, str) for value in container["resources"]["limits"].values())


def test_every_option_in_the_files_exists(capsys: pytest.CaptureFixture[str]) -> None:
    job, _ = objects()
    lines = [job["spec"]["entrypoint"]]
    for path in FILES:
        lines += re.sub(r"\\\n\s*", " ", path.read_text()).splitlines()
    seen = set()
    for line in lines:
        if found := re.search(r"\btilesmith\"? (optimize|superoptimize|resume)\b(.*)", line):
            main([found[1], "--help"])
            known = capsys.readouterr().out
            for option in re.findall(r"--[a-z-]+", found[2]):
                assert option in known, line
                seen.add(option)
    assert {"--bench", "--address", "--journal", "--schedule", "--threads"} <= seen


def test_the_image_has_what_must_agree() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.search(r'pip install .*"\.\[cluster,models,torch\]"', text)
    assert text.index("USER tilesmith") > text.index("pip install")
    page = (ROOT / "docs" / "cluster.md").read_text()
    for name in MUST_AGREE:
        assert name.capitalize() in page or name in page
    for path in FILES:
        assert f"examples/cluster/{path.name}" in page, path.name
