"""Where candidates are, as who watches is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.activity import Board, State, Step

states: st.SearchStrategy[State] = st.sampled_from(["capturing", "queued", "judging", "done"])


@given(st.lists(st.tuples(st.sampled_from("abcd"), states)))
def test_a_board_remembers_the_latest_step_of_who_is_under_way(told: list[tuple[str, State]]) -> None:
    board = Board()
    for candidate, state in told:
        board(Step(candidate, state))
    under_way: dict[str, State] = {}
    for candidate, state in told:
        if state == "capturing" or candidate in under_way:
            under_way[candidate] = state
        if state == "done":
            under_way.pop(candidate, None)
    assert {step.candidate: step.state for step in board.steps} == under_way


def test_late_news_of_who_is_done_brings_nobody_back() -> None:
    board = Board()
    late: list[State] = ["capturing", "judging", "done", "queued"]
    for state in late:
        board(Step("a", state))
    assert not board.steps
