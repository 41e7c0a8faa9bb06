"""The bench on a Ray cluster: the benches of one host, each in an actor, behind the same seam."""

from tilesmith.bench.ray.bench import RayBench

__all__ = ["RayBench"]
