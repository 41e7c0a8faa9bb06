"""Recorded replies."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.reply import Reply, Usage
from tilesmith.propose.chat import Chat, ModelBook, open_models
from tilesmith.propose.chat.recorded import Recorded, RecordedChat, read_replies
from tilesmith.testing.provider_conformance import CALL, PROMPT, ChatConformance

EXAMPLES = Path(__file__).parents[3] / "examples" / "replies"


def asked(chat: Chat, ordinal: int, attempt: int = 0) -> Reply:
    return asyncio.run(chat.ask(PROMPT, replace(CALL, ordinal=ordinal, attempt=attempt)))


def folder(path: Path) -> Path:
    """Two replies, the first with two repairs."""
    (path / "repairs").mkdir()
    repairs = "repairs: [repairs/a.md, repairs/b.md]"
    (path / "01.md").write_text(f"---\nauthor: written by hand\nlabel: wrong\nnote: no mask\n{repairs}\n---\nfirst\n")
    (path / "02.md").write_text("---\nlabel: no code\nstrong: false\n---\nsecond\n---\nafter a rule")
    (path / "repairs" / "a.md").write_text("---\nlabel: failed\n---\nrepair a\n")
    (path / "repairs" / "b.md").write_text("---\nlabel: correct\n---\nrepair b\n")
    return path


class TestRecordedConforms(ChatConformance):
    @pytest.fixture
    def chat(self, tmp_path: Path) -> Chat:
        name = f"replay:{folder(tmp_path)}"
        return open_models([name], ModelBook(), {})[name]

    @pytest.fixture
    def failing(self) -> Chat:
        class LastRepair(RecordedChat):
            async def ask(self, prompt, call):  # type: ignore[no-untyped-def]
                return await super().ask(prompt, replace(call, attempt=7))

        return LastRepair("replay:none", (Recorded(text="x"),))


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    chat = RecordedChat("replay:x", read_replies(folder(tmp_path)))
    assert [asked(chat, at).text for at in range(5)] == ["first\n", "second\n---\nafter a rule"] * 2 + ["first\n"]
    assert [asked(chat, 2, attempt).text for attempt in range(3)] == ["first\n", "repair a\n", "repair b\n"]


def test_used_up_repairs_are_a_fault(tmp_path: Path) -> None:
    chat = RecordedChat("replay:x", read_replies(folder(tmp_path)))
    for ordinal, attempt in ((0, 3), (1, 1)):
        reply = asked(chat, ordinal, attempt)
        assert reply.fault == "no recorded repair is left"
        assert reply.text == ""


def test_it_costs_nothing(tmp_path: Path) -> None:
    reply = asked(RecordedChat("replay:x", read_replies(folder(tmp_path))), 0)
    assert (reply.usd, reply.usage) == (0.0, Usage())


def test_lines_say_the_same_as_a_folder(tmp_path: Path) -> None:
    replies = read_replies(folder(tmp_path))
    path = tmp_path / "replies.jsonl"
    path.write_text("\n\n".join(reply.model_dump_json() for reply in replies) + "\n")
    assert read_replies(path) == replies


@given(st.lists(st.text(), min_size=1, max_size=5), st.integers(0, 50))
def test_the_reply_is_chosen_by_the_direction_alone(texts: list[str], ordinal: int) -> None:
    chat = RecordedChat("replay:x", tuple(Recorded(text=text) for text in texts))
    assert asked(chat, ordinal).text == texts[ordinal % len(texts)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1 is not valid JSON"),
        ("[]", "one JSON object"),
        ('{"note": "x"}', "text"),
        ('{"text": 7}', "text"),
        ('{"text": "x", "repair": []}', "unknown key repair; did you mean repairs?"),
        ('{"text": "x", "label": "right"}', "label"),
        ("", "holds no reply"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(line)
    with pytest.raises(OptionError, match=says.replace("?", r"\?")) as told:
        read_replies(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a reply without front matter", "front matter"),
        ("---\nlabel: wrong\nand no end", "front matter"),
        ("---\n[\n---\nx", "not valid YAML"),
        ("---\n- a\n---\nx", "a table"),
        ("---\nrepairs: one.md\n---\nx", "a list of files"),
        ("---\nrepairs: [one.md]\n---\nx", "one.md cannot be read"),
        ("---\nlable: wrong\n---\nx", "unknown key lable; did you mean label"),
    ],
)
def test_what_is_wrong_in_a_folder_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "01.md").write_text(text)
    with pytest.raises(OptionError, match=says):
        read_replies(tmp_path)


def test_an_empty_folder_a_missing_file_and_strange_bytes(tmp_path: Path) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff")
    for path in (tmp_path, tmp_path / "none.jsonl", tmp_path / "bytes.jsonl"):
        with pytest.raises(OptionError, match=str(path)):
            read_replies(path)


@pytest.mark.parametrize("path", sorted(each for each in EXAMPLES.iterdir() if any(each.glob("*.md"))), ids=str)
def test_the_examples_can_be_read(path: Path) -> None:
    replies = read_replies(path)
    assert all(reply.label and reply.note and reply.author == "written by hand" for reply in replies)
    assert json.loads(replies[0].model_dump_json())["text"] == replies[0].text
