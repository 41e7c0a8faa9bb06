"""The two protocols, as the test provider speaks them: what a request says, and the bytes of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from tilesmith.core.reply import Prompt, Usage

Protocol = Literal["anthropic", "openai"]
End = Literal["done", "length", "refusal"]

PATHS: dict[Protocol, str] = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}
ENDS: dict[Protocol, dict[End, str]] = {
    "anthropic": {"done": "end_turn", "length": "max_tokens", "refusal": "refusal"},
    "openai": {"done": "stop", "length": "length", "refusal": "content_filter"},
}
RUBBISH = b"event: content_block_delta\ndata: {\x00 this is \xff no JSON\n\n"


def count(*texts: str) -> int:
    """Tokens, as this provider counts."""
    return sum(len(text.encode()) // 4 + 1 for text in texts)


def request(protocol: Protocol, body: dict[str, Any]) -> tuple[str, Prompt, int, bool]:
    """The model, the conversation, the most output tokens, and whether a stream is wanted."""
    turns = [(turn["role"], _text(turn["content"])) for turn in body["messages"]]
    system = _text(body.get("system", ""))
    if protocol == "openai":
        system = "\n".join(text for role, text in turns if role in ("system", "developer"))
        turns = [(role, text) for role, text in turns if role not in ("system", "developer")]
    most = body.get("max_tokens", body.get("max_completion_tokens", 0))
    return body["model"], Prompt(system, tuple(text for _, text in turns)), most, bool(body.get("stream"))


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def events(protocol: Protocol, model: str, pieces: Sequence[str], end: End, usage: Usage | None) -> list[bytes]:
    """A whole stream. What this protocol tells of usage it tells where it should."""
    if protocol == "anthropic":
        return _messages(model, pieces, end, usage or Usage())
    said = [_completion(model, {"role": "assistant", "content": ""})]
    said += [_completion(model, {"content": piece}) for piece in pieces]
    said.append(_completion(model, {"refusal": "I will not."} if end == "refusal" else {}, ENDS["openai"][end]))
    if usage is not None:
        said.append(_data({**_chunk(model), "choices": [], "usage": _counted(usage)}))
    return [*said, b"data: [DONE]\n\n"]


def _messages(model: str, pieces: Sequence[str], end: End, usage: Usage) -> list[bytes]:
    begun = {**_message(model), "content": [], "usage": {**_usage(usage), "output_tokens": 1}}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": ENDS["anthropic"][end], "stop_sequence": None},
            "usage": {"output_tokens": usage.output_tokens},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {each['type']}\n".encode() + _data(each) for each in said]


def whole(protocol: Protocol, model: str, text: str, end: End, usage: Usage | None) -> tuple[int, bytes]:
    """Status and body of an answer that is not streamed."""
    if protocol == "anthropic":
        content = [{"type": "text", "text": text}]
        said = {**_message(model), "content": content, "usage": _usage(usage or Usage())}
        said["stop_reason"] = ENDS["anthropic"][end]
    else:
        message = {"role": "assistant", "content": text, "refusal": "I will not." if end == "refusal" else None}
        choice = {"index": 0, "message": message, "finish_reason": ENDS["openai"][end]}
        said = {**_chunk(model), "object": "chat.completion", "choices": [choice]}
        if usage is not None:
            said["usage"] = _counted(usage)
    return 200, json.dumps(said).encode()


def error(protocol: Protocol, status: int, kind: str, message: str) -> tuple[int, bytes]:
    """Status and body of an error."""
    fault = {"type": kind, "message": message}
    said = {"type": "error", "error": fault} if protocol == "anthropic" else {"error": {**fault, "code": kind}}
    return status, json.dumps(said).encode()


def late_error(protocol: Protocol, message: str) -> bytes:
    """An error in the middle of a stream."""
    _, body = error(protocol, 200, "overloaded_error", message)
    return (b"event: error\n" if protocol == "anthropic" else b"") + b"data: " + body + b"\n\n"


def models(protocol: Protocol, names: Sequence[str], one: str) -> tuple[int, bytes]:
    """Status and body of the answer to which models there are, or to whether there is this one."""
    known: list[dict[str, Any]] = [
        {"id": name, "type": "model", "object": "model", "display_name": name, "created": 0, "owned_by": "tests",
         "created_at": "2026-01-01T00:00:00Z"}
        for name in names
    ]  # fmt: skip
    if one and one not in names:
        return error(protocol, 404, "not_found_error", f"no model {one}")
    if one:
        return 200, json.dumps(next(each for each in known if each["id"] == one)).encode()
    return 200, json.dumps({"object": "list", "data": known, "has_more": False}).encode()


def _message(model: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _chunk(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}


def _completion(model: str, delta: dict[str, str], finish: str | None = None) -> bytes:
    return _data({**_chunk(model), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }


def _counted(usage: Usage) -> dict[str, Any]:
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
    }


def _data(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"
