"""What the benchmarks that need a GPU share."""

from __future__ import annotations

import sys

from lib.answer import NO_GPU, say
from tilesmith.bench.gpus import Device, find


def first_gpu() -> Device:
    """The GPU to measure on. Ends the script with exit status 2 where there is none."""
    devices = find()
    if not devices:
        say("this benchmark needs an NVIDIA GPU, and this machine has none that nvidia-smi shows")
        sys.exit(NO_GPU)
    return devices[0]


def described(device: Device) -> str:
    return f"{device.name}, driver {device.driver}"
