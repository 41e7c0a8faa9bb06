"""What a study says of its cells, from numbers that are known."""

from __future__ import annotations

from dataclasses import replace

from tilesmith.report.study import COPIES, Agreement, Cell, Measured, agreements, disagreements, from_line, rows

ALONE = Cell("concrete/lora", "static", "dfs", "table", 1)


def one(cell: Cell, seconds: float, *busy: float, states: int = 1000, graphs: str = "a") -> Measured:
    return Measured(
        cell, "exhausted", seconds, 0.5, states, 7, graphs, busy, busy, 0.25, 0.0, 0, 0, 0, 0.0, 3, 1 << 20
    )  # fmt: skip


def test_speed_ups_name_what_they_are_over() -> None:
    four = replace(ALONE, schedule="openmp", threads=4)
    alone, shared = rows([one(ALONE, 8.0, 8.0), one(four, 2.5, 2.5, 2.0, 2.0, 1.5, states=1020)])[::-1]
    assert alone.cell == ALONE
    assert (alone.speedup, alone.efficiency, alone.imbalance) == (1.0, 1.0, 1.0)
    assert (shared.speedup, shared.efficiency) == (3.2, 0.8)
    assert shared.imbalance == shared.cpu_imbalance == 1.25
    assert shared.cpu_speedup == 3.2
    assert shared.baseline == str(ALONE)
    assert shared.extra_states is not None
    assert abs(shared.extra_states - 0.02) < 1e-12
    assert shared.states_per_s == 408
    assert shared.of_ceiling is None


def test_what_the_machine_loses_is_not_the_schedule_s() -> None:
    two = replace(ALONE, schedule="openmp", threads=2)
    copies = replace(ALONE, schedule=COPIES)
    found = rows(
        [
            one(ALONE, 8.0, 8.0),
            one(two, 5.0, 5.0, 5.0),
            one(copies, 8.0, 8.0),
            one(replace(copies, threads=2), 10.0, 10.0),
        ]
    )
    shared = next(row for row in found if row.cell == two)
    assert (shared.efficiency, shared.of_ceiling) == (0.8, 1.0)
    assert all(row.speedup is None for row in found if row.cell.schedule == COPIES)


def test_repeats_are_one_row_of_medians() -> None:
    (row,) = rows(
        one(replace(ALONE, repeat=repeat), seconds, seconds) for repeat, seconds in enumerate((3.0, 9.0, 4.0))
    )
    assert (row.repeats, row.seconds) == (3, 4.0)


def test_without_a_baseline_there_is_no_speed_up() -> None:
    (row,) = rows([one(replace(ALONE, threads=2), 3.0, 3.0, 3.0)])
    assert (row.speedup, row.baseline) == (None, "")


def test_other_graphs_are_noticed() -> None:
    two = replace(ALONE, threads=2)
    assert disagreements([one(ALONE, 1.0, 1.0), one(two, 1.0, 1.0)]) == ()
    (said,) = disagreements([one(ALONE, 1.0, 1.0), one(two, 1.0, 1.0, graphs="b")])
    assert "found other graphs" in said


def test_searches_that_agree_are_counted() -> None:
    two = replace(ALONE, threads=2)
    many = [one(replace(cell, repeat=repeat), 1.0, 1.0) for cell in (ALONE, two) for repeat in range(20)]
    assert agreements(many) == (Agreement("concrete/lora", "table", 40, 2, 20),)
    assert "result sets identical, 2 ways, 20 repeats" in str(agreements(many)[0])
    assert agreements(many[:1]) == ()
    assert agreements([*many, one(replace(two, repeat=20), 1.0, 1.0, graphs="b")]) == ()
    assert agreements([*many[:-1], replace(many[-1], stop="seconds")]) == (
        Agreement("concrete/lora", "table", 39, 2, 19),
    )


def test_work_that_moved_and_seconds_for_the_lock_are_medians() -> None:
    (row,) = rows(
        replace(one(replace(ALONE, repeat=repeat), 1.0, 1.0), given=given, lock_seconds=given / 10)
        for repeat, given in enumerate((5, 1, 3))
    )
    assert (row.given, row.lock_seconds) == (3, 0.3)


def test_a_line_is_read_as_it_was_written() -> None:
    written = one(ALONE, 1.5, 1.25, 1.0)
    assert from_line(written.to_line()) == written
    assert from_line(written.to_line()[:-5]) is None
    assert from_line("[1]") is None
