"""Recorded replies in the place of a model: they cost nothing and are the same every time.

The form is described in `examples/replies/README.md`: a folder of Markdown files with front matter, or one JSON object
a line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tilesmith.core.errors import OptionError
from tilesmith.core.names import meant
from tilesmith.core.reply import Prompt, Reply
from tilesmith.propose.chat.seam import Call
from tilesmith.propose.chat.words import sentence

MAX_BYTES = 64 << 20
FENCE = "---\n"


class Recorded(BaseModel):
    """One reply and what follows it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str
    repairs: Annotated[tuple[str, ...], Field(strict=False)] = ()
    author: str = ""
    label: Literal["correct", "wrong", "rejected", "failed", "unchecked", "duplicate", "no code"] | None = None
    note: str = ""
    of: str | None = None
    strong: bool = False


class RecordedChat:
    """Answers direction n with the n-th reply, counted from the first again after the last."""

    def __init__(self, name: str, replies: tuple[Recorded, ...]) -> None:
        self.name = name
        self._replies = replies

    async def ask(self, prompt: Prompt, call: Call) -> Reply:
        del prompt
        reply = self._replies[call.ordinal % len(self._replies)]
        if call.attempt > len(reply.repairs):
            return Reply(call.key, self.name, "", usd=0.0, fault="no recorded repair is left")
        return Reply(call.key, self.name, (reply.text, *reply.repairs)[call.attempt], usd=0.0)

    async def close(self) -> None:
        pass


def read_replies(path: Path) -> tuple[Recorded, ...]:
    """The replies of a folder, `*.md` in the order of their names, or of a `.jsonl` file.

    Raises `OptionError`, which names the file and the place in it.
    """
    if path.is_dir():
        replies = tuple(_markdown(each) for each in sorted(path.glob("*.md"), key=lambda each: each.name))
        lacking = "holds no *.md file"
    else:
        lines = _text(path).split("\n")
        replies = tuple(_record(f"{path}, line {at}", line) for at, line in enumerate(lines, 1) if line.strip())
        lacking = "holds no reply"
    if not replies:
        raise OptionError(f"{path} {lacking}; examples/replies/README.md says how replies are recorded.")
    return replies


def _markdown(path: Path) -> Recorded:
    matter, text = _split(path)
    named = matter.pop("repairs", [])
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise OptionError(f"{path}: repairs should be a list of files.")
    repairs = tuple(_split(path.parent / each)[1] for each in named)
    return _checked(str(path), {**matter, "text": text, "repairs": repairs})


def _split(path: Path) -> tuple[dict[str, Any], str]:
    text = _text(path)
    matter, fence, reply = text.removeprefix(FENCE).partition("\n" + FENCE)
    if not text.startswith(FENCE) or not fence:
        raise OptionError(f"{path} does not begin with front matter between two lines of ---.")
    try:
        loaded = yaml.safe_load(matter)
    except yaml.YAMLError as error:
        raise OptionError(f"{path}: the front matter is not valid YAML: {sentence(str(error))}.") from None
    if not isinstance(loaded, dict):
        raise OptionError(f"{path}: the front matter should be a table of keys and values.")
    return {str(key): value for key, value in loaded.items()}, reply


def _record(where: str, line: str) -> Recorded:
    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError):
        raise OptionError(f"{where} is not valid JSON.") from None
    if not isinstance(loaded, dict):
        raise OptionError(f"{where} should be one JSON object.")
    return _checked(where, loaded)


def _checked(where: str, loaded: dict[str, Any]) -> Recorded:
    try:
        return Recorded.model_validate(loaded)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise OptionError(f"{where}: unknown key {key}; {meant(key, Recorded.model_fields)}") from None
        raise OptionError(f"{where}: {key} cannot be used: {sentence(first['msg'])}.") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}); check the path of the replies.") from None
    if len(data) > MAX_BYTES:
        raise OptionError(f"{path} is larger than {MAX_BYTES:,} bytes; record fewer replies in one file.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not UTF-8; save it as UTF-8.") from None
