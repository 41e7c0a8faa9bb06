"""What counters say of a kernel: its limiter, its traffic, and what is known of it where counters are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.bench.ncu import METRICS, NAMED, Row, kernel_profiles
from tilesmith.core.gpu import TABLE, target
from tilesmith.core.profile import KernelProfile, Profile

H200 = target("h200")
NCU = dict(NAMED)
LONG_NS = 200_000.0


def profile(**named: float) -> KernelProfile:
    """Of one launch of 200 us with these counters, by our names."""
    values = {"gpu__time_duration.sum": LONG_NS, **{NCU[name]: value for name, value in named.items()}}
    (kernel,) = kernel_profiles([Row(0, "k", tuple(values.items()))], H200)
    return kernel


def raw(**values: float) -> KernelProfile:
    """The same, by ncu's names with two underscores for each dot."""
    row = Row(
        0, "k", (("gpu__time_duration.sum", LONG_NS), *((name.replace("_dot_", "."), v) for name, v in values.items()))
    )
    (kernel,) = kernel_profiles([row], H200)
    return kernel


BUSY_SM = {"dram_throughput_pct": 20.0, "l2_throughput_pct": 10.0}


@pytest.mark.parametrize(
    ("named", "limiter"),
    [
        ({"dram_throughput_pct": 89.5, "l2_throughput_pct": 43.8, "tensor_pipe_pct": 30.0}, "dram"),
        # Of what can be read, 56 % of the datasheet's bandwidth is 61 %.
        ({"dram_throughput_pct": 56.0}, "dram"),
        ({"dram_throughput_pct": 54.0}, "latency"),
        ({"dram_throughput_pct": 60.0, "l2_throughput_pct": 80.0}, "l2"),
        ({"l2_in_port_pct": 70.0}, "l2"),
        ({"l1_pipe_pct": 85.0, "shared_bank_conflicts": 1e6}, "l2"),
        ({**BUSY_SM, "tensor_pipe_pct": 88.0, "issue_pct": 30.0}, "tensor"),
        ({**BUSY_SM, "fma_pipe_pct": 75.0}, "alu"),
        ({**BUSY_SM, "xu_pipe_pct": 75.0}, "alu"),
        ({**BUSY_SM, "issue_pct": 75.0}, "alu"),
        ({**BUSY_SM, "lsu_pipe_pct": 90.0}, "alu"),
        ({"atomic_unit_busiest_pct": 70.0, "atomic_unit_pct": 68.0}, "atomics"),
        # One slice is full of atomics on one address, which it takes every third cycle.
        ({"atomic_unit_busiest_pct": 33.0, "atomic_unit_pct": 0.4}, "atomics"),
        ({"atomic_unit_busiest_pct": 33.0, "atomic_unit_pct": 31.0}, "latency"),
        ({**BUSY_SM}, "latency"),
        ({}, "latency"),
    ],
)
def test_the_resource_nearest_its_ceiling_limits(named: dict[str, float], limiter: str) -> None:
    assert profile(**named).limiter == limiter


def cycles(active: float, **named: float) -> KernelProfile:
    values = {"sm__cycles_active.avg": active, "sm__cycles_elapsed.avg": 1000.0, "gpu__time_duration.sum": LONG_NS}
    values |= {NCU[name]: value for name, value in named.items()}
    (kernel,) = kernel_profiles([Row(0, "k", tuple(values.items()))], H200)
    return kernel


def test_idle_multiprocessors_are_too_little_parallelism() -> None:
    # 16 programs on 132 multiprocessors, as a first attempt at a matrix-vector product has them.
    start = cycles(121.0, dram_throughput_pct=18.0, waves=0.01)
    assert start.limiter == "parallelism"
    assert start.metric("sm_active_pct") == pytest.approx(12.1)
    # More multiprocessors would add matrix units, however busy those of the others are.
    assert cycles(650.0, tensor_pipe_pct=62.0).limiter == "parallelism"
    # They would not add device memory.
    assert cycles(650.0, dram_throughput_pct=88.0).limiter == "dram"
    assert cycles(950.0, dram_throughput_pct=30.0).limiter == "latency"


def test_starting_a_small_kernel_takes_longer_than_running_it() -> None:
    small = Row(0, "small", (("gpu__time_duration.sum", 4_500.0), (NCU["dram_throughput_pct"], 70.0)))
    tiny = Row(1, "tiny", (("gpu__time_duration.sum", 2_100.0),))
    first, second, third = kernel_profiles([small, small, tiny], H200)
    # The first launch of a call costs more than the later ones, which the GPU starts back to back.
    assert [first.limiter, second.limiter, third.limiter] == ["launch", "dram", "launch"]


def test_every_launch_counts_by_its_time() -> None:
    rows = [
        Row(0, "split", (("gpu__time_duration.sum", 900_000.0), (NCU["dram_throughput_pct"], 90.0))),
        Row(1, "reduce", (("gpu__time_duration.sum", 20_000.0), (NCU["issue_pct"], 90.0))),
        Row(2, "reduce", (("gpu__time_duration.sum", 20_000.0), (NCU["issue_pct"], 90.0))),
    ]
    whole = Profile("ncu", "h200", kernel_profiles(rows, H200))
    assert [kernel.kernel for kernel in whole.kernels] == ["split", "reduce", "reduce"]
    assert whole.time_us == pytest.approx(940.0)
    assert whole.ranked() == ("dram", "alu")


def test_traffic_is_what_programs_load_and_store() -> None:
    loads = {
        "l1tex__t_sectors_pipe_lsu_mem_global_op_ld_dot_sum": 100.0,
        "l1tex__t_sectors_pipe_lsu_mem_global_op_st_dot_sum": 50.0,
        "l1tex__t_sectors_pipe_lsu_mem_global_op_red_dot_sum": 10.0,
        "sm__sass_l1tex_t_sectors_pipe_lsu_mem_global_op_ldgsts_cache_bypass_dot_sum": 1000.0,
        "l1tex__m_xbar2l1tex_read_bytes_mem_global_op_tma_ld_dot_sum": 4096.0,
        "l1tex__t_requests_pipe_lsu_mem_global_op_ld_dot_sum": 25.0,
        "lts__t_sectors_srcunit_tex_dot_sum": 7.0,
    }
    kernel = raw(**loads)
    assert kernel.loaded_bytes == 32 * 1160 + 4096
    assert kernel.metric("sectors_per_load") == 4
    assert kernel.metric("sectors_per_store") is None
    # Where the first-level counters are missing, the second level's stand in.
    assert raw(lts__t_sectors_srcunit_tex_dot_sum=7.0).loaded_bytes == 224
    assert raw(dram__bytes_read_dot_sum=3e8, dram__bytes_write_dot_sum=1e8).metric("dram_bytes_per_s") == pytest.approx(
        2e12
    )


def test_operations_of_threads_and_of_matrix_units() -> None:
    kernel = raw(
        sm__cycles_elapsed_dot_avg=1000.0,
        smsp__sass_thread_inst_executed_op_ffma_pred_on_dot_sum_dot_per_cycle_elapsed=128.0,
        smsp__sass_thread_inst_executed_op_hfma_pred_on_dot_sum_dot_per_cycle_elapsed=64.0,
        sm__ops_path_tensor_src_bf16_dst_fp32_dot_sum=1e9,
    )
    assert kernel.flops == 1000 * (2 * 128 + 4 * 64) + 1e9


def test_stalls_are_shares_of_the_time_between_instructions() -> None:
    kernel = raw(
        smsp__average_warp_latency_per_inst_issued_dot_ratio=200.0,
        smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active_dot_ratio=150.0,
    )
    assert kernel.metric("stall_long_scoreboard_pct") == 75.0
    assert kernel.metric("stall_barrier_pct") is None


def test_the_time_comes_from_cycles_where_it_is_missing() -> None:
    (kernel,) = kernel_profiles([Row(0, "k", (("sm__cycles_elapsed.avg", 1.98e6),))], H200)
    assert kernel.time_us == pytest.approx(1000.0)
    assert kernel_profiles([Row(0, "k", ())], H200)[0].time_us == 0


def test_waves_come_from_the_grid_where_they_are_missing() -> None:
    assert profile(programs=264.0).waves == 2.0
    assert profile(programs=264.0, waves=0.5).waves == 0.5


def test_a_metric_that_an_estimate_lacks_is_none() -> None:
    assert replace(profile(), metrics=()).metric("waves") is None


@given(st.dictionaries(st.sampled_from(METRICS), st.floats(0, 1e12)), st.sampled_from(sorted(TABLE)), st.booleans())
def test_any_counters_may_be_missing(values: dict[str, float], gpu: str, second: bool) -> None:
    rows = [Row(0, "k", tuple(sorted(values.items())))] * (1 + second)
    for kernel in kernel_profiles(rows, target(gpu)):
        assert 0 <= kernel.occupancy <= 1
        assert kernel.time_us >= 0
        assert kernel.metrics == tuple(sorted(kernel.metrics))
