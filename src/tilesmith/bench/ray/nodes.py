"""What the nodes of a cluster have, and what is made of it: one kind of GPU, one set of versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilesmith.bench.gpus import Device, model
from tilesmith.core.errors import MachineError, OptionError
from tilesmith.core.gpu import Gpu, target

MUST_AGREE = ("tilesmith", "torch", "triton")
"""Packages whose version decides a verdict, or what is sent between nodes. Ray itself keeps Ray's and Python's."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the cluster, as it was found."""

    id: str
    name: str
    """Its address; that of several on one machine is the same."""
    cpus: int
    gpus: int
    """As Ray counts them: what it would lend."""
    versions: Mapping[str, str | None]
    """Of the packages that must agree; None where one is not installed."""
    devices: tuple[Device, ...] = ()
    """As nvidia-smi shows them."""

    def lends(self, kind: str | None) -> int:
        """How many GPUs of a kind it may lend. On a node with several kinds Ray alone knows which ones it lends."""
        return min(self.gpus, sum(device.name == kind for device in self.devices))


@dataclass(frozen=True, slots=True)
class Plan:
    """What the cluster is used as."""

    gpu: Gpu
    kind: str | None
    """The name of the GPUs that are used; None where times are estimated."""
    versions: Mapping[str, str | None]
    remarks: tuple[str, ...] = ()
    """What a user should know: which GPUs are left aside."""

    @property
    def measured(self) -> bool:
        return self.kind is not None


def plan(nodes: Sequence[Node], own: str, wanted: str | None, otherwise: str | None = None) -> Plan:
    """Decide what for, and with whom; `own` is this process's Tilesmith, as a survey calls it.

    The kind of which most GPUs can be had is used, of equals the first by name, or that of the target `wanted`. Where
    there are no GPUs times are estimated, for the target `wanted` or else `otherwise`. Raises `MachineError` for a
    cluster that cannot be used, `OptionError` for a target that is not there.
    """
    if not nodes:
        raise MachineError("the Ray cluster has no node that lends CPUs or GPUs; start one with `ray start`")
    versions = nodes[0].versions
    for node in nodes:
        if complaint := disagreement(node, versions, nodes[0].name, own):
            raise MachineError(complaint)
    kinds: Counter[str] = Counter()
    for node in nodes:
        for kind in {device.name for device in node.devices}:
            kinds[kind] += node.lends(kind)
    kinds = +kinds
    gpus = {device.name: device.gpu for node in nodes for device in node.devices}
    if not kinds:
        return Plan(target(wanted or otherwise), None, versions, _unseen(nodes))
    if wanted is not None:
        name = target(wanted).name
        if all(gpus[kind].name != name for kind in kinds):
            there = ", ".join(sorted(kinds))
            raise OptionError(f"--target is {wanted}, and the Ray cluster has {there}; leave it out, or name one")
        kinds = Counter({kind: count for kind, count in kinds.items() if gpus[kind].name == name})
    chosen = min(kinds, key=lambda kind: (-kinds[kind], kind))
    aside = sorted({device.name for node in nodes for device in node.devices if node.gpus} - {chosen})
    why = f"GPUs of different kinds are never compared: {chosen} is used, {', '.join(aside)} left aside"
    return Plan(gpus[chosen], chosen, versions, (why,) if aside else ())


def disagreement(node: Node, versions: Mapping[str, str | None], of: str, own: str) -> str | None:
    """The sentence on a node that has not what the others have; None for one that has."""
    for package in MUST_AGREE:
        found = node.versions.get(package)
        if found is None:
            return f"node {node.name} of the Ray cluster has no {package}; install the same there as on the others"
        expected, whose = (own, "this machine") if package == "tilesmith" else (versions.get(package), f"node {of}")
        if found != expected:
            return (
                f"the nodes of the Ray cluster have different versions: {package} is {found} on node {node.name} and "
                f"{expected} on {whose}; install the same on all of them"
            )
    return None


def _unseen(nodes: Sequence[Node]) -> tuple[str, ...]:
    blind = [node.name for node in nodes if node.gpus and not node.devices]
    if not blind:
        return ()
    return (f"node {blind[0]} lends GPUs but nvidia-smi shows none there, so times are estimates",)


def alive(rows: Sequence[Mapping[str, Any]]) -> dict[str, Node]:
    """The nodes in `ray.nodes()` that lend anything, by their ids, with nothing known of what is installed."""
    found: dict[str, Node] = {}
    for row in rows:
        resources = row.get("Resources") or {}
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if row.get("Alive") and (cpus or gpus):
            found[row["NodeID"]] = Node(row["NodeID"], str(row.get("NodeManagerAddress", "?")), cpus, gpus, {})
    return found


def survey() -> Callable[[bool], dict[str, Any]]:
    """A function that says what the machine on which it runs has; with False of its packages only.

    It is made anew so that it travels by value: it must run where there is no Tilesmith, or another one, and what it
    answers must be read without either.
    """

    def look(whole: bool) -> dict[str, Any]:
        import hashlib
        import importlib
        import importlib.metadata
        import os
        from pathlib import Path

        versions: dict[str, str | None] = {}
        for package in ("torch", "triton"):
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                versions[package] = None
        devices: tuple[Any, ...] = ()
        try:
            ours = importlib.import_module("tilesmith")
            # Of two copies under development both may be called the same.
            digest = hashlib.sha256()
            for path in sorted(Path(str(ours.__file__)).parent.rglob("*.py")):
                digest.update(path.read_bytes())
            versions["tilesmith"] = f"{ours.__version__} ({digest.hexdigest()[:8]})"
            if whole:
                # Ray hides all GPUs from who asks for none.
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
                devices = importlib.import_module("tilesmith.bench.gpus").find()
        except (ImportError, AttributeError, OSError):
            versions.setdefault("tilesmith", None)
        names = ("index", "uuid", "name", "memory_bytes", "driver", "arch")
        return {"versions": versions, "devices": [[getattr(device, name) for name in names] for device in devices]}

    return look


def surveyed(node: Node, found: Mapping[str, Any]) -> Node:
    """The node with what a survey found there."""
    devices = tuple(
        Device(index, uuid, name, memory_bytes, driver, arch, model(name, arch, memory_bytes))
        for index, uuid, name, memory_bytes, driver, arch in found["devices"]
    )
    return replace(node, versions=found["versions"], devices=devices)
