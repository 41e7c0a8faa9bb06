"""What compute-sanitizer says, as words and a verdict."""

from __future__ import annotations

import pytest

from tilesmith.bench.sanitizer import read, unfollowed

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
WRITE = (
    "========= COMPUTE-SANITIZER\n========= Invalid __global__ write of size 4 bytes\n"
    "=========     at add_kernel+0x1d0\n========= ERROR SUMMARY: 8 errors\n"
)
RACE = (
    "========= COMPUTE-SANITIZER\n========= Error: Race reported between Write access at sum_kernel+0x90\n"
    "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n"
)
CALM = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
REFUSED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to the documentation\n"


@pytest.mark.parametrize(
    ("output", "finished", "clean", "said"),
    [
        (CLEAN, True, True, "clean"),
        (CALM, True, True, "clean"),
        (CLEAN, False, None, "could not watch it"),
        (WRITE, True, False, "Invalid __global__ write of size 4 bytes"),
        (WRITE, False, False, "Invalid __global__ write of size 4 bytes"),
        (RACE, True, False, "Race reported between Write access"),
        (REFUSED, False, None, "Device not supported"),
        ("", False, None, "it says nothing"),
    ],
)
def test_outputs(output: str, finished: bool, clean: bool | None, said: str) -> None:
    finding = read("memcheck", output, finished=finished)
    assert finding.clean is clean
    assert said in finding.words


def test_what_racecheck_cannot_follow_is_no_verdict() -> None:
    guilty = read("racecheck", RACE, finished=True)
    doubted = unfollowed(guilty)
    assert doubted.clean is None
    assert "cannot follow" in doubted.words
    assert guilty.words in doubted.words
    clean = read("racecheck", CALM, finished=True)
    assert unfollowed(clean) is clean
