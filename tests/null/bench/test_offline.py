"""The bench without a GPU keeps every bench's promises, with real processes, real compilation and real numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tilesmith.bench.effort import Effort
from tilesmith.bench.offline import OfflineBench
from tilesmith.core.gpu import target
from tilesmith.testing.bench import RunningBenchConformance

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def bench() -> Iterator[OfflineBench]:
    with OfflineBench(target("h200"), jobs=2, effort=Effort(capture_s=25.0, check_s=25.0, full_s=25.0)) as bench:
        yield bench


class TestOfflineBench(RunningBenchConformance):
    @pytest.fixture
    def bench(self, bench: OfflineBench) -> OfflineBench:
        return bench
