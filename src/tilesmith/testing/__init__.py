"""Ships with the product: fakes of the three seams, and the suites that every implementation of one passes.

`fakes` needs nothing; the suites `bench`, `journal` and `proposer` need pytest. A suite is a class to inherit:

    class TestMyJournal(JournalConformance):
        @pytest.fixture
        def journal(self) -> Journal:
            return MyJournal()
"""
