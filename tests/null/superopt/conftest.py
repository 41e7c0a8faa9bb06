"""What tests of lowered kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interpreted import Interpreter


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    with Interpreter() as running:
        yield running
