"""Nsight Compute's command line: what to ask it for, how to read its answer, and what that says of each kernel.

The counters are those that ncu 2025.3 lists for the H200. What a GPU or a version of ncu lacks is simply absent: every
value and rule below does without what it does not have.

The limiter of a kernel, the first of these that holds:

launch       what is left of its time without filling and draining the GPU is less than what starting a kernel costs
             (constants of `tilesmith.bench.roofline`, measured)
parallelism  the average multiprocessor had work for less than `EVEN_SHARE` of the time, and neither device memory nor
             atomics, which few multiprocessors can saturate, come within a factor `UNEVEN_NEAR` of their ceiling
dram, l2,    the resource that is nearest its ceiling, where that is at least `BUSY`: the threshold of the Kernel
tensor, alu, Profiling Guide ("below 60 % of peak indicates latency issues"), on throughput over elapsed cycles ("speed
atomics      of light", its name for the roofline of Williams, Waterman and Patterson, CACM 52(4), 2009)
latency      none is: by Little's law too little is in flight

The ceiling of device memory is what a kernel can read, not the datasheet's (`Gpu.readable`). `lts__throughput` is not
looked at: it takes in the link between the halves of the L2 cache, and stands at 92 % where device memory is the limit
(recorded: 89 %). "l2" is traffic on the chip: L2 sectors and ports, and the first-level data pipe with shared memory,
for which there is no limiter of its own. "alu" is every other pipe of the multiprocessors, and the issue slots. An L2
slice takes an atomic on a contended address every third cycle (`roofline.ATOMIC_S`); contention is where the busiest
slice has twice the average.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tilesmith.bench import roofline
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import DRAM_LATENCY_S, FIRST_LAUNCH_S, NEXT_LAUNCH_S, Gpu
from tilesmith.core.profile import KernelProfile, Limiter

BUSY = 0.6
UNEVEN_NEAR = 1.3
SECTOR_BYTES = 32
CONTENDED_CYCLES = 3.0

# What is asked for --------------------------------------------------------------------------------------------------

_ELAPSED = "avg.pct_of_peak_sustained_elapsed"
_STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
_STALLS = (
    "barrier", "branch_resolving", "drain", "gmma", "lg_throttle", "long_scoreboard", "math_pipe_throttle", "membar",
    "mio_throttle", "not_selected", "short_scoreboard", "sleeping", "wait",
)  # fmt: skip
_LATENCY = "smsp__average_warp_latency_per_inst_issued.ratio"

NAMED: tuple[tuple[str, str], ...] = (
    ("active_warps", "smsp__warps_active.avg.per_cycle_active"),
    ("achieved_occupancy_pct", "sm__warps_active.avg.pct_of_peak_sustained_active"),
    ("alu_pipe_pct", f"sm__pipe_alu_cycles_active.{_ELAPSED}"),
    ("atomic_unit_busiest_pct", "lts__d_atomic_input_cycles_active.max.pct_of_peak_sustained_elapsed"),
    ("atomic_unit_pct", f"lts__d_atomic_input_cycles_active.{_ELAPSED}"),
    ("block_threads", "launch__block_size"),
    ("bytes_used_per_loaded_sector", "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.ratio"),
    ("bytes_used_per_stored_sector", "smsp__sass_average_data_bytes_per_sector_mem_global_op_st.ratio"),
    ("clock_hz", "smsp__cycles_elapsed.avg.per_second"),
    ("dram_read_bytes", "dram__bytes_read.sum"),
    ("dram_throughput_pct", f"gpu__dram_throughput.{_ELAPSED}"),
    ("dram_write_bytes", "dram__bytes_write.sum"),
    ("eligible_warps", "smsp__warps_eligible.avg.per_cycle_active"),
    ("fma_pipe_pct", f"sm__pipe_fma_cycles_active.{_ELAPSED}"),
    ("fp64_pipe_pct", f"sm__pipe_fp64_cycles_active.{_ELAPSED}"),
    ("issue_active_pct", "smsp__issue_active.avg.pct_of_peak_sustained_active"),
    ("issue_pct", f"sm__inst_issued.{_ELAPSED}"),
    ("l1_hit_pct", "l1tex__t_sector_hit_rate.pct"),
    ("l1_pipe_pct", f"l1tex__data_pipe_lsu_wavefronts.{_ELAPSED}"),
    ("l2_hit_pct", "lts__t_sector_hit_rate.pct"),
    ("l2_in_port_pct", f"lts__xbar2lts_cycles_active.{_ELAPSED}"),
    ("l2_out_port_pct", f"lts__lts2xbar_cycles_active.{_ELAPSED}"),
    ("l2_throughput_pct", f"lts__t_sectors.{_ELAPSED}"),
    ("limit_blocks_registers", "launch__occupancy_limit_registers"),
    ("limit_blocks_shared", "launch__occupancy_limit_shared_mem"),
    ("lsu_pipe_pct", f"sm__inst_executed_pipe_lsu.{_ELAPSED}"),
    ("programs", "launch__grid_size"),
    ("registers", "launch__registers_per_thread"),
    ("shared_bank_conflicts", "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"),
    ("shared_wavefronts", "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"),
    ("tensor_pipe_pct", f"sm__pipe_tensor_cycles_active.{_ELAPSED}"),
    ("theoretical_occupancy_pct", "sm__maximum_warps_per_active_cycle_pct"),
    ("waves", "launch__waves_per_multiprocessor"),
    ("xu_pipe_pct", f"sm__inst_executed_pipe_xu.{_ELAPSED}"),
)
"""Passed on as ncu has them, in its base units: the name here, and ncu's."""

_TIME = "gpu__time_duration.sum"
_ACTIVE, _CYCLES = "sm__cycles_active.avg", "sm__cycles_elapsed.avg"
_LOADS, _LOAD_REQUESTS = (f"l1tex__t_{what}_pipe_lsu_mem_global_op_ld.sum" for what in ("sectors", "requests"))
_STORES, _STORE_REQUESTS = (f"l1tex__t_{what}_pipe_lsu_mem_global_op_st.sum" for what in ("sectors", "requests"))
_SHARED = ("launch__shared_mem_per_block_dynamic", "launch__shared_mem_per_block_static")
_LOCAL = ("l1tex__t_requests_pipe_lsu_mem_local_op_ld.sum", "l1tex__t_requests_pipe_lsu_mem_local_op_st.sum")
_L2_SECTORS = "lts__t_sectors_srcunit_tex.sum"
_SECTORS = (
    _LOADS,
    _STORES,
    "l1tex__t_sectors_pipe_lsu_mem_global_op_red.sum",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_atom.sum",
    "sm__sass_l1tex_t_sectors_pipe_lsu_mem_global_op_ldgsts_cache_access.sum",
    "sm__sass_l1tex_t_sectors_pipe_lsu_mem_global_op_ldgsts_cache_bypass.sum",
)
_BULK = (
    "l1tex__m_xbar2l1tex_read_bytes_mem_global_op_tma_ld.sum",
    "l1tex__m_l1tex2xbar_write_bytes_mem_global_op_tma_st.sum",
    "l1tex__m_l1tex2xbar_write_bytes_mem_global_op_tma_red.sum",
)
"""Of the tensor memory accelerator, in bytes."""
_RATES: tuple[tuple[str, float], ...] = tuple(
    (f"smsp__sass_thread_inst_executed_op_{operation}_pred_on.sum.per_cycle_elapsed", flops)
    for operation, flops in (
        ("fadd", 1.0), ("fmul", 1.0), ("ffma", 2.0), ("dadd", 1.0), ("dmul", 1.0), ("dfma", 2.0),
        ("hadd", 2.0), ("hmul", 2.0), ("hfma", 4.0),
    )
)  # fmt: skip
"""Operations of threads a cycle, and what each counts; those of half precision work on pairs."""
_MATRIX = tuple(
    f"sm__ops_path_tensor_src_{kind}.sum"
    for kind in ("bf16_dst_fp32", "fp16", "fp64", "fp8_sparsity_off", "fp8_sparsity_on", "int8", "tf32_dst_fp32")
)

METRICS: tuple[str, ...] = tuple(
    sorted(
        {
            *(metric for _, metric in NAMED),
            *(_STALL.format(name) for name in _STALLS),
            *(_LATENCY, _TIME, _ACTIVE, _CYCLES, _LOAD_REQUESTS, _STORE_REQUESTS, _L2_SECTORS),
            *(*_SHARED, *_LOCAL, *_SECTORS, *_BULK, *_MATRIX, *(rate for rate, _ in _RATES)),
        }
    )
)
"""A chosen set: the full one has 2,200 and replays each kernel 38 times."""


def command(ncu: str, target: Sequence[str], metrics: Sequence[str] = METRICS) -> list[str]:
    """The command that profiles what `target` launches between cudaProfilerStart and cudaProfilerStop.

    Each launch is replayed until every counter has been read (`--replay-mode kernel`): ncu saves the memory that the
    kernel can reach, and puts it back before every pass. So a target shares its memory with no other process: what
    that one wrote meanwhile would be undone. Every pass finds the caches cold, as the bench's timing does; the clocks
    are left alone.
    """
    return [
        ncu,
        "--csv", "--page", "raw", "--print-units", "base", "--print-kernel-base", "function",
        "--profile-from-start", "off", "--target-processes", "application-only", "--replay-mode", "kernel",
        "--cache-control", "all", "--clock-control", "none", "--apply-rules", "no",
        "--metrics", ",".join(metrics),
        *target,
    ]  # fmt: skip


def lacking(output: str, metrics: Sequence[str]) -> frozenset[str]:
    """Those of the metrics that ncu says it does not know, plainly or as "regex:^name\\.(sum|min)$"."""
    unknown = set(re.findall(r"Failed to find metric (?:regex:)?\^?(\w+)", output))
    return frozenset(metric for metric in metrics if metric.partition(".")[0] in unknown)


# What comes back -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One launch, as ncu saw it."""

    id: int
    """Launches are numbered as they are profiled."""
    kernel: str
    metrics: tuple[tuple[str, float], ...]
    """By ncu's names, sorted; in its base units (ns, byte, cycle, %, and those per second). What it could not read is
    absent."""


_FIXED = frozenset(
    (
        "ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Kernel Time", "Context", "Stream",
        "Block Size", "Grid Size", "Device", "CC", "Section Name", "Invocations",
    )
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_PREFIX = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_TIMES = {"n": 1.0, "u": 1e3, "m": 1e6, "": 1e9}
_TIME_UNIT = re.compile(r"([num]?)(?:s|sec|second|seconds)")


def parse(text: str) -> tuple[Row, ...]:
    """The launches in ncu's CSV output, in order; none where it profiled none.

    Reads the raw page, one line a launch with a line of units before the first, and the pages that have one line a
    metric. Lines that are no part of a table (ncu's own, the program's) are passed over.
    Raises `MachineError` where a table is cut short or cannot be read.
    """
    rows: list[Row] = []
    for table in _tables(text):
        rows += _long(table) if "Metric Name" in table[0] else _wide(table)
    return tuple(rows)


def _tables(text: str) -> Iterator[list[list[str]]]:
    table: list[list[str]] = []
    for line in re.split(r"\r?\n", text):
        # Before a table come the program's own words, maybe in quotes.
        if not line.startswith('"' if table else '"ID"'):
            continue
        try:
            (cells,) = csv.reader([line], strict=True)
        except csv.Error:
            raise MachineError("ncu's output ends in the middle of a line; it was cut short, so run it again") from None
        if cells[0] == "ID":
            if table:
                yield table
            table = []
        elif len(cells) != len(table[0]):
            found, wanted = len(cells), len(table[0])
            raise MachineError(
                f"ncu's output was cut short: a line has {found} cells, its table {wanted}; run it again"
            )
        table.append(cells)
    if table:
        yield table


def _wide(table: list[list[str]]) -> list[Row]:
    header, *lines = table
    units = [""] * len(header)
    if lines and not lines[0][0].strip():
        units, *lines = lines
    if not lines:
        raise MachineError("ncu's output ends before its first launch; it was cut short, so run it again")
    columns = [(at, name, units[at]) for at, name in enumerate(header) if name not in _FIXED]
    found = []
    for line in lines:
        values = {name: value for at, name, unit in columns if (value := _value(line[at], unit)) is not None}
        found.append(_row(dict(zip(header, line, strict=True)), values))
    return found


def _long(table: list[list[str]]) -> list[Row]:
    header, *lines = table
    launches: dict[tuple[str, str], tuple[dict[str, str], dict[str, float]]] = {}
    for line in lines:
        cells = dict(zip(header, line, strict=True))
        key = (cells["ID"], cells.get("Process ID", ""))
        _, values = launches.setdefault(key, (cells, {}))
        # Lines of rules have no metric; a metric of several sections comes several times.
        value = _value(cells.get("Metric Value", ""), cells.get("Metric Unit", ""))
        if cells["Metric Name"] and value is not None:
            values.setdefault(cells["Metric Name"], value)
    if not launches:
        raise MachineError("ncu's output ends before its first launch; it was cut short, so run it again")
    return [_row(cells, values) for cells, values in launches.values()]


def _row(cells: dict[str, str], values: dict[str, float]) -> Row:
    if not cells["ID"].strip().isdigit():
        raise MachineError(f"ncu's output numbers a launch {cells['ID'][:40]!r}, which is no number")
    return Row(int(cells["ID"]), cells.get("Kernel Name", ""), tuple(sorted(values.items())))


def _value(cell: str, unit: str) -> float | None:
    """In base units. None for "nan", "n/a" and what is no number."""
    text = cell.partition(" (")[0].strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", "")) * _scale(unit)
    return value if math.isfinite(value) else None


def _scale(unit: str) -> float:
    """What a value in this unit is multiplied with: "Kbyte" and "us" are 1,000, "cycle/nsecond" is 1e9.

    ncu's prefixes are powers of ten, also of bytes. A time in nanoseconds is in base units; a rate is per second.
    """
    above, _, below = (part.strip() for part in unit.partition("/"))
    over = _TIME_UNIT.fullmatch(below)
    return _prefix(above) / (_TIMES[over[1]] / 1e9 if over else _prefix(below))


def _prefix(unit: str) -> float:
    if time := _TIME_UNIT.fullmatch(unit):
        return _TIMES[time[1]]
    return _PREFIX[unit[0]] if re.fullmatch(r"[KMGTP][a-z]{2,}", unit) else 1.0


# What it says --------------------------------------------------------------------------------------------------------


def kernel_profiles(rows: Sequence[Row], gpu: Gpu) -> tuple[KernelProfile, ...]:
    """One profile a launch, in order: every kernel of a call counts, by its time.

    See this module's docstring for the limiter. `loaded_bytes` counts whole sectors of 32 bytes; `flops` those of
    threads that were not masked off, and of the matrix units. `metrics` holds `NAMED`, and:

    dram_bytes_per_s      read and written, over the kernel's time
    local_requests        of warps to memory of their own, most of them for spilled registers
    sectors_per_load      sectors of 32 bytes that a warp's load touches, and `sectors_per_store`
    shared_bytes          that a program asks for
    sm_active_pct         of the time, that the average multiprocessor had work
    stall_..._pct         of a warp's time from one instruction to the next, by what it waits for
    """
    return tuple(_kernel_profile(_Seen(row), gpu, first=place == 0) for place, row in enumerate(rows))


class _Seen:
    """The counters of one launch; each may be missing."""

    def __init__(self, row: Row) -> None:
        self.kernel = row.kernel
        self._values = dict(row.metrics)

    def get(self, name: str) -> float | None:
        return self._values.get(name)

    def total(self, names: Sequence[str]) -> float | None:
        """The sum of those that are there; None where none is."""
        there = [self._values[name] for name in names if name in self._values]
        return sum(there) if there else None

    def ratio(self, above: str, below: str, factor: float = 1.0) -> float | None:
        over = self._values.get(below)
        value = self._values.get(above)
        return factor * value / over if value is not None and over else None


def _kernel_profile(seen: _Seen, gpu: Gpu, *, first: bool) -> KernelProfile:
    cycles = seen.get(_CYCLES) or 0.0
    time_us = (seen.get(_TIME) or 1e9 * cycles / gpu.clock_hz) / 1e3
    named = {name: value for name, metric in NAMED if (value := seen.get(metric)) is not None}
    dram_bytes = named.get("dram_read_bytes", 0.0) + named.get("dram_write_bytes", 0.0)
    sectors = seen.total(_SECTORS)
    moved = None if sectors is None else sectors * SECTOR_BYTES + (seen.total(_BULK) or 0.0)
    if not moved:
        moved = SECTOR_BYTES * (seen.get(_L2_SECTORS) or 0.0)
    threads = sum(flops * (seen.get(rate) or 0.0) for rate, flops in _RATES)
    derived = {
        "dram_bytes_per_s": 1e6 * dram_bytes / time_us if time_us else None,
        "local_requests": seen.total(_LOCAL),
        "sectors_per_load": seen.ratio(_LOADS, _LOAD_REQUESTS),
        "sectors_per_store": seen.ratio(_STORES, _STORE_REQUESTS),
        "shared_bytes": seen.total(_SHARED),
        "sm_active_pct": seen.ratio(_ACTIVE, _CYCLES, 100.0),
        **{f"stall_{name}_pct": seen.ratio(_STALL.format(name), _LATENCY, 100.0) for name in _STALLS},
    }
    metrics = {**named, **{name: value for name, value in derived.items() if value is not None}}
    return KernelProfile(
        kernel=seen.kernel,
        time_us=time_us,
        limiter=_limiter(metrics, time_us, gpu, first=first),
        dram_bytes=dram_bytes,
        loaded_bytes=moved,
        flops=threads * cycles + (seen.total(_MATRIX) or 0.0),
        occupancy=min(1.0, named.get("achieved_occupancy_pct", 0.0) / 100),
        waves=named.get("waves", named.get("programs", 0.0) / gpu.multiprocessors),
        metrics=tuple(sorted(metrics.items())),
    )


def _limiter(metrics: Mapping[str, float], time_us: float, gpu: Gpu, *, first: bool) -> Limiter:
    """By the rules in this module's docstring; `metrics` by the names of `kernel_profiles`."""

    def share(*names: str) -> float:
        return max(metrics.get(name, 0.0) for name in names) / 100

    start_s = FIRST_LAUNCH_S if first else NEXT_LAUNCH_S
    fill_s = roofline.RAMP_S + DRAM_LATENCY_S
    if 0 < time_us < 1e6 * (start_s + 2 * fill_s):
        return "launch"
    busiest, average = share("atomic_unit_busiest_pct"), share("atomic_unit_pct")
    shares: dict[Limiter, float] = {
        "dram": share("dram_throughput_pct") / gpu.readable,
        "tensor": share("tensor_pipe_pct"),
        "l2": share("l2_throughput_pct", "l2_in_port_pct", "l2_out_port_pct", "l1_pipe_pct"),
        "alu": share("alu_pipe_pct", "fma_pipe_pct", "fp64_pipe_pct", "xu_pipe_pct", "lsu_pipe_pct", "issue_pct"),
        "atomics": min(1.0, busiest * (CONTENDED_CYCLES if busiest > 2 * average else 1.0)),
    }
    uneven = metrics.get("sm_active_pct", 100.0) < 100 * roofline.EVEN_SHARE
    if uneven and UNEVEN_NEAR * max(shares["dram"], shares["atomics"]) < 1:
        return "parallelism"
    nearest = max(shares, key=lambda name: shares[name])
    return nearest if shares[nearest] >= BUSY else "latency"
