"""ncu's CSV as it really is: a recorded profile, and variants of it made by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.bench.ncu import METRICS, Row, command, kernel_profiles, lacking, parse
from tilesmith.core.errors import MachineError
from tilesmith.core.gpu import target

FOLDER = Path(__file__).parents[2] / "golden" / "ncu"
RECORDED, DETAILS = FOLDER / "full_vector_add_h200.csv", FOLDER / "details_two_launches.csv"
FIXED = [
    *("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream"),
    *("Block Size", "Grid Size", "Device", "CC"),
]
HEADER = ",".join(f'"{name}"' for name in FIXED)
LAUNCH = '"{id}","864","python3.12","127.0.0.1","{kernel}","1","7","(128, 1, 1)","(64, 1, 1)","0","9.0"'
NO_UNITS = ",".join(['""'] * 11)


def wide(columns: list[tuple[str, str]], launches: list[tuple[int, str, list[str]]]) -> str:
    """The raw page: columns with units, and for each launch its id, its kernel's name and its cells."""
    lines = [
        ",".join([HEADER, *(f'"{name}"' for name, _ in columns)]),
        ",".join([NO_UNITS, *(f'"{unit}"' for _, unit in columns)]),
    ]
    lines += [
        ",".join([LAUNCH.format(id=number, kernel=kernel), *(f'"{cell}"' for cell in cells)])
        for number, kernel, cells in launches
    ]
    return "\n".join(lines) + "\n"


def one(unit: str, cell: str) -> float | None:
    (row,) = parse(wide([("metric", unit)], [(0, "k", [cell])]))
    return dict(row.metrics).get("metric")


def test_the_recorded_profile() -> None:
    (row,) = parse(RECORDED.read_text(encoding="utf-8"))
    values = dict(row.metrics)
    assert (row.id, row.kernel) == (0, "add")
    assert values["gpu__time_duration.sum"] == 182_688
    assert values["dram__bytes_read.sum"] == 536_895_744
    assert values["smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio"] == 169.76
    assert "derived_tempMetric4" not in values  # "nan"
    assert "launch__tpc_enabled" not in values  # "all"
    assert set(METRICS) <= set(values)


def test_what_the_recorded_profile_says(golden: Callable[[str, str], None]) -> None:
    (kernel,) = kernel_profiles(parse(RECORDED.read_text(encoding="utf-8")), target("h200"))
    lines = [f"{name} = {getattr(kernel, name)!r}" for name in kernel.__slots__ if name != "metrics"]
    lines += [f"  {name} = {value!r}" for name, value in kernel.metrics]
    golden("ncu/full_vector_add_h200.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("cut", [5_000, 100_000, 140_000, 146_000, 150_000, 162_400])
def test_a_recording_cut_short_is_an_error(cut: int) -> None:
    with pytest.raises(MachineError, match="cut short"):
        parse(RECORDED.read_text(encoding="utf-8")[:cut])


def test_a_table_without_launches_is_cut_short() -> None:
    with pytest.raises(MachineError, match="before its first launch"):
        parse(wide([("metric", "ns")], []))
    with pytest.raises(MachineError, match="before its first launch"):
        parse('"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n')


def test_a_launch_without_a_number_is_an_error() -> None:
    with pytest.raises(MachineError, match="no number"):
        parse(wide([("metric", "ns")], [(0, "k", ["1"])]).replace('"0","864"', '"x","864"'))


def test_no_table_means_that_nothing_was_profiled() -> None:
    assert parse("") == ()
    assert (
        parse('==PROF== Connected to process 7 (python)\n"quoted" words\n==WARNING== No kernels were profiled.\n') == ()
    )


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "n/a",
        "N/A",
        "(!) n/a",
        "(!) nan",
        "no data",
        "all",
        "1,5",
        ".",
        "e5",
        "-",
        "²",
        "1 2",
    ],
)
def test_what_is_no_number_is_absent(cell: str) -> None:
    assert one("", cell) is None


@pytest.mark.parametrize(
    ("unit", "cell", "value"),
    [
        ("", "1,234,567", 1_234_567),
        ("", "-1,234.5", -1234.5),
        ("", ".5", 0.5),
        ("", "1e+3", 1000),
        ("", "6 (1; 2; 3)", 6),
        ("%", "89.49", 89.49),
        ("ns", "182,688", 182_688),
        ("nsecond", "182,688", 182_688),
        ("us", "182.69", 182_690),
        ("usecond", "182.5", 182_500),
        ("ms", "1.5", 1_500_000),
        ("msecond", "1.5", 1_500_000),
        ("s", "2", 2e9),
        ("second", "2", 2e9),
        ("byte", "1,024", 1024),
        ("Kbyte", "32.77", 32_770),
        ("Mbyte", "536.9", 536.9e6),
        ("Gbyte", "1.5", 1.5e9),
        ("byte/second", "5", 5),
        ("byte/s", "5", 5),
        ("Gbyte/second", "4.3", 4.3e9),
        ("Tbyte/s", "4.3", 4.3e12),
        ("byte/ns", "4", 4e9),
        ("hz", "7", 7),
        ("Ghz", "1.94", 1.94e9),
        ("Mhz", "1,940", 1.94e9),
        ("cycle/nsecond", "1.94", 1.94e9),
        ("cycle/usecond", "1,940", 1.94e9),
        ("byte/block", "1,024", 1024),
        ("Kbyte/block", "1.02", 1020),
        ("register/thread", "26", 26),
        ("inst/cycle", "0.23", 0.23),
        ("SM", "132", 132),
        ("Minst", "2", 2e6),
        ("%/byte", "3", 3),
    ],
)
def test_units(unit: str, cell: str, value: float) -> None:
    assert one(unit, cell) == pytest.approx(value, rel=1e-12)


def test_noise_between_the_lines_is_passed_over() -> None:
    table = wide([("a", "us")], [(0, "k", ["1"]), (1, "k", ["2"])]).splitlines()
    noise = ['==PROF== Profiling "k": 0%....50%....100% - 9 passes', "the program prints", '"and, quotes"', ""]
    text = "\r\n".join(
        [*noise, table[0], table[1], "==WARNING== x", table[2], noise[0], noise[1], table[3], "==PROF== Disconnected"]
    )
    assert [row.metrics for row in parse(text)] == [(("a", 1000.0),), (("a", 2000.0),)]


def test_repeated_launches_and_names_with_commas_and_quotes() -> None:
    names = ["void f<int, 4>(int *, float)", 'operator""_k(a, b)', "add", "add"]
    text = wide([("a", "")], [(at, name.replace('"', '""'), [str(at)]) for at, name in enumerate(names)])
    assert [(row.id, row.kernel) for row in parse(text)] == list(enumerate(names))


def test_a_table_without_a_line_of_units() -> None:
    text = "\n".join(wide([("a", "us")], [(0, "k", ["5"])]).splitlines()[::2])
    assert parse(text) == (Row(0, "k", (("a", 5.0),)),)


def test_several_tables() -> None:
    text = wide([("a", "")], [(0, "k", ["1"])]) + wide([("b", "us")], [(1, "l", ["2"])])
    assert parse(text) == (Row(0, "k", (("a", 1.0),)), Row(1, "l", (("b", 2000.0),)))


LONG = DETAILS.read_text(encoding="utf-8")


def test_one_line_a_metric() -> None:
    first, second = parse(LONG)
    assert first == Row(0, "add(float *, int)", (("DRAM Frequency", 3.201e9), ("Duration", 182_690.0)))
    assert second.metrics == (("Duration", 1_000_500_000.0),)


def test_one_line_a_metric_cut_short() -> None:
    with pytest.raises(MachineError, match="cut short"):
        parse(LONG[:-30])


# Round trip ----------------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda name: name == name.strip()
)
UNITS = st.sampled_from(
    [("", 1.0), ("us", 1e3), ("Kbyte", 1e3), ("Gbyte/second", 1e9), ("%", 1.0), ("cycle/nsecond", 1e9)]
)
FORMS = st.sampled_from(["{!r}", "{:,}"])
MISSING = st.sampled_from(["nan", "n/a", ""])
VALUES = st.floats(-1e15, 1e15).map(lambda value: float(f"{value:.6g}")) | st.integers(-(10**12), 10**12).map(float)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[str, str, float]], list[tuple[str, list[tuple[str, float | None]]]]]:
    """Metrics with unit and scale; launches with kernel and, for each metric, its cell and its value."""
    metrics = draw(
        st.lists(
            st.tuples(st.from_regex(r"[a-z_]{2,12}\.(sum|avg|pct)", fullmatch=True), UNITS),
            min_size=1,
            max_size=5,
            unique_by=lambda each: each[0],
        )
    )
    known = [(name, unit, scale) for name, (unit, scale) in metrics]

    def cell() -> tuple[str, float | None]:
        value = draw(st.none() | VALUES)
        return (draw(MISSING), None) if value is None else (draw(FORMS).format(value), value)

    launches = [(draw(NAMES), [cell() for _ in known]) for _ in range(draw(st.integers(1, 4)))]
    return known, launches


@given(tables(), st.booleans())
def test_a_table_comes_back_as_it_was_written(
    table: tuple[list[tuple[str, str, float]], list[tuple[str, list[tuple[str, float | None]]]]], long: bool
) -> None:
    metrics, launches = table
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    file.write("==PROF== Connected to process 1 (x)\n")
    if long:
        writer.writerow(["ID", "Process ID", "Kernel Name", "Metric Name", "Metric Unit", "Metric Value"])
        for number, (kernel, cells) in enumerate(launches):
            for (name, unit, _), (cell, _) in zip(metrics, cells, strict=True):
                writer.writerow([number, 1, kernel, name, unit, cell])
    else:
        writer.writerow(["ID", "Kernel Name", "CC", *(name for name, _, _ in metrics)])
        writer.writerow(["", "", "", *(unit for _, unit, _ in metrics)])
        for number, (kernel, cells) in enumerate(launches):
            writer.writerow([number, kernel, "9.0", *(cell for cell, _ in cells)])
    expected = [
        Row(
            number,
            kernel,
            tuple(
                sorted(
                    (name, value * scale)
                    for (name, _, scale), (_, value) in zip(metrics, cells, strict=True)
                    if value is not None
                )
            ),
        )
        for number, (kernel, cells) in enumerate(launches)
    ]
    found = parse(file.getvalue())
    assert [(row.id, row.kernel, [name for name, _ in row.metrics]) for row in found] == [
        (row.id, row.kernel, [name for name, _ in row.metrics]) for row in expected
    ]
    for row, wanted in zip(found, expected, strict=True):
        assert [value for _, value in row.metrics] == pytest.approx([value for _, value in wanted.metrics])


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_counts_only_what_lies_between_start_and_stop() -> None:
    made = command("/opt/ncu", ["python", "x.py"], ["a.sum", "b.avg"])
    assert made[0] == "/opt/ncu"
    assert made[-2:] == ["python", "x.py"]
    text = " ".join(made)
    assert "--profile-from-start off" in text
    assert "--replay-mode kernel" in text
    assert "--target-processes application-only" in text
    assert "--metrics a.sum,b.avg" in text
    assert "sudo" not in text


def test_metrics_that_ncu_does_not_know() -> None:
    said = (
        "==ERROR== Failed to find metric regex:^gpu__gone\\.(sum|min|max|avg|pct|ratio|max_rate)$\n"
        "==ERROR== Failed to find metric lts__old.sum.pct\n"
    )
    asked = ["gpu__gone.sum", "gpu__gone_not.sum", "lts__old.sum.pct", "sm__fine.avg"]
    assert lacking(said, asked) == {"gpu__gone.sum", "lts__old.sum.pct"}
    assert lacking("==PROF== fine", asked) == frozenset()
