"""What compiled code holds, read from its PTX."""

from __future__ import annotations

import re

_PATTERNS = {
    "mma": re.compile(r"(?<![\w.])(?:w?mma|wgmma|tcgen05)\.(?:\w+\.)*?(?:mma|sync|mma_async)\b"),
    "wgmma": re.compile(r"\bwgmma\.mma_async\b|\btcgen05\.mma\b"),
    "tf32": re.compile(r"mma\S*\.tf32\b"),
    "fp16_accumulate": re.compile(r"\.m\d+n\d+k\d+(?:\.row|\.col)*\.f16\."),
    "cp.async": re.compile(r"\bcp\.async\.c[ag]\."),
    "tma": re.compile(r"\bcp\.async\.bulk\.tensor\."),
    "vector128": re.compile(r"\bld\.global\S*\.(?:v4\.[bfus]32|v2\.[bfus]64|v8\.[bfus]16|[bfus]128|v8\.[bfus]32)\b"),
    "atomic": re.compile(r"(?<![\w.])(?:atom|red)\.(?:\S*\.)?global\b"),
    "cluster": re.compile(r"\.reqnctapercluster\b|\bbarrier\.cluster\.|\bmapa\.|%cluster_ctarank|\.explicitcluster\b"),
    "evict_first": re.compile(r"evict_first"),
    "evict_last": re.compile(r"evict_last"),
    "mbarrier": re.compile(r"\bmbarrier\.(?:try_wait|test_wait|arrive)"),
    "spill": re.compile(r"\.local\s+\.align\s+\d+\s+\.b8\s+__local_depot"),
}

VOCABULARY = frozenset(_PATTERNS)
"""
mma              matrix instructions of any generation
wgmma            matrix instructions of a warp group, with operands in shared memory (tcgen05 on newer chips)
tf32             matrix instructions that round float32 operands
fp16_accumulate  matrix instructions that sum in half precision
cp.async         asynchronous copies from global to shared memory, by threads
tma              asynchronous copies of whole tiles by the tensor memory accelerator
vector128        loads of at least 128 bits a thread from global memory
atomic           read-modify-write operations on global memory
cluster          programs that share memory in clusters
evict_first      loads or stores whose lines leave the cache first
evict_last       loads or stores whose lines leave the cache last
mbarrier         barriers that count the bytes of asynchronous copies
spill            variables in local memory; what only the assembler spills is in `Launch.spills`
"""

_LOAD = re.compile(r"\bld\.global(?:\.[\w:]+?)*?(?:\.v(\d))?\.[bfus](\d+)\b")


def features(ptx: str) -> frozenset[str]:
    """The entries of `VOCABULARY` that this PTX shows."""
    return frozenset(name for name, pattern in _PATTERNS.items() if pattern.search(ptx))


def load_bytes(ptx: str) -> float | None:
    """The mean width of the loads from global memory that stand in the code, in bytes a thread; None without any.

    Asynchronous copies count with the 16 bytes that their fast form moves.
    """
    widths = [int(lanes or 1) * int(bits) / 8 for lanes, bits in _LOAD.findall(ptx)]
    widths += [16.0] * len(_PATTERNS["cp.async"].findall(ptx))
    return sum(widths) / len(widths) if widths else None
