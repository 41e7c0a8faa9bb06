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
    last = dict(told)
    assert {step.candidate: step.state for step in board.steps} == {
        candidate: state for candidate, state in last.items() if state != "done"
    }
