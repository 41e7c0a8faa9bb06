"""Opening the models of a run: what is refused before anything is paid for, who is set aside, what stays secret."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tilesmith.core.errors import OptionError
from tilesmith.core.reply import Prompt, Reply, Usage
from tilesmith.propose.chat import Call, ModelBook, Models, Price, Provider, Rates, Retry, open_models, read_book
from tilesmith.propose.chat.models import Model
from tilesmith.propose.chat.words import REAL_SECRET, Secrets
from tilesmith.testing.provider import Behaviour, ProviderServer
from tilesmith.testing.provider_conformance import CALL, PROMPT
from tilesmith.testing.provider_replies import BROKEN

KEY = "sk-test-0123456789abcdef"
QUICK = Retry(attempts=2, base_s=0.001, cap_s=0.002)


def book(server: ProviderServer) -> ModelBook:
    providers = {
        "anthropic": Provider("anthropic", "anthropic", server.url, "A_KEY"),
        "openai": Provider("openai", "openai", server.openai_url, "O_KEY"),
        "local": Provider("local", "openai", server.openai_url, free=True),
    }
    return ModelBook(providers, {"anthropic:m": Price(Rates(5, 25, 0.5, 6.25))})


ENVIRON = {"A_KEY": KEY, "O_KEY": KEY + "-2"}


@pytest.mark.parametrize(
    ("names", "environ", "says"),
    [
        ([], {}, "no model is named"),
        (["gpt-5.4"], {}, "did you mean openai:gpt-5.4?"),
        (["clod"], {}, "should be written provider:model"),
        (["opena:gpt-5"], {}, "unknown provider 'opena' in 'opena:gpt-5'; did you mean openai?"),
        (["openai:"], {}, "names no model"),
        (["openai:gpt-5"], {}, "set the environment variable OPENAI_API_KEY"),
        (["anthropic:x"], {"ANTHROPIC_API_KEY": " "}, "set the environment variable ANTHROPIC_API_KEY"),
        (["gemini:x"], {"OPENAI_API_KEY": KEY}, "set the environment variable GEMINI_API_KEY"),
        (["openai:x"], {"OPENAI_API_KEY": f"{KEY}\n{KEY}"}, "what OPENAI_API_KEY holds is none"),
        (["openai:x"], {"OPENAI_API_KEY": KEY + "\N{EM DASH}"}, "what OPENAI_API_KEY holds is none"),
        (["vllm:x", "vllm:x"], {}, "named twice"),
        (["replay:/nowhere/at/all"], {}, "/nowhere/at/all cannot be read"),
        (["command:no-such-program-here"], {}, "there is no program 'no-such-program-here'"),
        (["vllm:good", "openai:gpt-5"], {}, "OPENAI_API_KEY"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_the_mend(names: list[str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(OptionError) as told:
        open_models(names, read_book(), environ)
    assert says in str(told.value)
    assert KEY not in str(told.value)


@pytest.mark.parametrize(("name", "sdk"), [("anthropic:x", "anthropic"), ("openai:x", "openai")])
def test_a_missing_sdk_names_the_extra(monkeypatch: pytest.MonkeyPatch, name: str, sdk: str) -> None:
    for module in ("tilesmith.propose.chat.messages", "tilesmith.propose.chat.completions"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, sdk, None)
    keys = {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": KEY}
    with pytest.raises(OptionError, match=r"tilesmith\[models\]"):
        open_models([name], read_book(), keys)


def test_an_unknown_price_is_said_once_and_stops_a_budget() -> None:
    said: list[str] = []
    with ProviderServer(lambda _: Behaviour("good")) as server:

        async def run() -> tuple[Reply, Reply]:
            models = open_models(["openai:new", "anthropic:m"], book(server), ENVIRON, said.append)
            with pytest.raises(OptionError, match="openai:new"):
                models.require_prices()
            assert models["openai:new"].estimate_usd(PROMPT, CALL) is None
            replies = [await models[name].ask(PROMPT, CALL) for name in models.names]
            await models.close()
            return replies[0], replies[1]

        unpriced, priced = asyncio.run(run())
    assert unpriced.usd is None
    assert unpriced.usage.tokens > 0
    assert priced.usd
    assert said == ["the price of openai:new is not known: what it costs is not counted."]


def test_free_models_need_no_price() -> None:
    with ProviderServer(lambda _: Behaviour("good")) as server:

        async def run() -> Reply:
            models = open_models(["local:any"], book(server), {})
            models.require_prices()
            reply = await models["local:any"].ask(PROMPT, CALL)
            await models.close()
            return reply

        reply = asyncio.run(run())
        assert (reply.usd, reply.fault) == (0.0, None)
        assert KEY not in str(server.asked)


def test_the_estimate_is_a_bound() -> None:
    usage = Usage(0, CALL.max_output_tokens, 0, 200)
    with ProviderServer(lambda _: Behaviour("y" * 5000, usage=usage)) as server:

        async def run() -> tuple[float | None, Reply]:
            models = open_models(["anthropic:m"], book(server), ENVIRON)
            prompt = Prompt("s" * 100, ("t" * 100,))
            estimate = models["anthropic:m"].estimate_usd(prompt, CALL)
            reply = await models["anthropic:m"].ask(prompt, CALL)
            await models.close()
            return estimate, reply

        estimate, reply = asyncio.run(run())
    assert estimate is not None
    assert reply.usd is not None
    assert reply.usd <= estimate
    assert estimate == pytest.approx((264 * 6.25 + 1000 * 25) / 1e6)


class Scripted:
    """Fails where the script says so."""

    name = "test:model"

    def __init__(self, fates: str) -> None:
        self.fates = list(fates)

    async def ask(self, prompt: Prompt, call: Call) -> Reply:
        del prompt
        fate = self.fates.pop(0)
        await asyncio.sleep(0)
        fault = {"+": None, "-": "no", "q": "the queue"}[fate]
        return Reply(call.key, self.name, "", attempts=0 if fate == "q" else 1, fault=fault)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("fates", "aside"),
    [("-----", True), ("----+----", False), ("---q--", True), ("qqqqqqqqq", False), ("--+-----", True)],
)
def test_five_failures_in_a_row_set_a_model_aside(fates: str, aside: bool) -> None:
    said: list[str] = []

    async def run() -> None:
        chat = Scripted(fates)
        model = Model(chat, None, 5, said.append)
        for _ in fates:
            await model.ask(PROMPT, CALL)
        assert model.set_aside is aside
        if aside:
            later = await model.ask(PROMPT, CALL)
            assert (later.fault, later.attempts, later.usd) == (
                "test:model was set aside after 5 failures in a row",
                0,
                0.0,
            )
            assert not chat.fates

    asyncio.run(run())
    assert said == (["test:model failed 5 times in a row and is set aside; the last time: no."] if aside else [])


def test_it_is_said_once_however_many_are_on_their_way() -> None:
    said: list[str] = []

    async def run() -> None:
        model = Model(Scripted("-" * 20 + "+"), None, 5, said.append)
        await asyncio.gather(*(model.ask(PROMPT, CALL) for _ in range(21)))
        # One that was on its way came back with an answer: out stays out.
        assert model.set_aside

    asyncio.run(run())
    assert len(said) == 1


def test_one_model_set_aside_leaves_the_others() -> None:
    with ProviderServer(lambda asked: BROKEN if asked.model == "bad" else Behaviour("good")) as server:

        async def run() -> None:
            models = open_models(["anthropic:bad", "anthropic:m"], book(server), ENVIRON, retry=QUICK, failures=2)
            for _ in range(3):
                await models["anthropic:bad"].ask(PROMPT, CALL)
                assert (await models["anthropic:m"].ask(PROMPT, CALL)).fault is None
            await models.close()

        asyncio.run(run())
        assert sum(asked.model == "bad" for asked in server.asked) == 2 * QUICK.attempts


def test_keys_stay_secret(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """In a provider's own words, in a reply, in logs, in whatever is printed of the objects."""
    caplog.set_level(logging.DEBUG)
    faults = {
        "m": Behaviour(status=400, message=f"bad key {KEY} or {KEY}-2"),
        "echo": Behaviour(f"your key is {KEY}-2"),
        "late": Behaviour("y" * 100, failure="error", message=f"no capacity for {KEY}"),
    }
    with ProviderServer(lambda asked: faults[asked.model]) as server:
        names = [f"{provider}:{model}" for provider in ("anthropic", "openai") for model in faults]

        async def run() -> list[Reply]:
            models = open_models(names, book(server), ENVIRON, retry=QUICK)
            replies = [await models[name].ask(PROMPT, CALL) for name in names]
            shown = [repr(each) + repr(vars(each)) for each in (models, *models)]
            assert KEY not in "".join(shown)
            with pytest.raises(TypeError):
                pickle.dumps(models)
            await models.close()
            return replies

        replies = asyncio.run(run())
        assert {asked.key for asked in server.asked} == {KEY, KEY + "-2"}
    assert KEY not in repr(replies)
    assert "[key]" in repr(replies)
    assert KEY not in caplog.text
    assert KEY not in "".join(capfd.readouterr())


def test_secrets_are_neither_shown_nor_sent() -> None:
    secrets = Secrets([KEY, KEY + "-2", "word", "abc"])
    assert secrets.scrubbed(f"{KEY}-2 {KEY} word abc") == "[key] [key] [key] abc"
    # A word that serves as the key of a local server may stand in a kernel.
    assert secrets.scrubbed(f"{KEY} word", REAL_SECRET) == "[key] word"
    assert KEY not in repr(secrets)
    with pytest.raises(TypeError, match="keys stay"):
        pickle.dumps(secrets)


def test_the_environment_of_this_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come from what is given, never from the process, and never go to it: its children would have them."""
    monkeypatch.setenv("OPENAI_API_KEY", "another-key-of-somebody")
    monkeypatch.setenv("OPENAI_ORG_ID", "some-organisation")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    with ProviderServer(lambda _: Behaviour("good")) as server:

        async def run() -> None:
            models = open_models(["openai:m", "anthropic:m", "local:m"], book(server), ENVIRON)
            for model in models:
                assert (await model.ask(PROMPT, CALL)).fault is None
            await models.close()

        asyncio.run(run())
        assert "another-key-of-somebody" not in str(server.asked)
        assert "some-organisation" not in str(server.asked)
    assert KEY not in Path("/proc/self/environ").read_text()
    assert KEY not in str(os.environ)


class TestCheck:
    """Asking providers what they have, before anything is paid for."""

    def checked(self, server: ProviderServer, *names: str) -> None:
        async def run() -> None:
            models = open_models(names, book(server), ENVIRON)
            try:
                await models.check()
            finally:
                await models.close()

        asyncio.run(run())
        assert not server.asked

    @pytest.mark.parametrize("provider", ["anthropic", "openai", "local"])
    def test_a_known_model_passes_and_an_unknown_one_is_told(self, provider: str) -> None:
        with ProviderServer(lambda _: BROKEN, models=["m", "coder-70b"]) as server:
            self.checked(server, f"{provider}:m")
            with pytest.raises(OptionError, match=f"unknown model {provider}:codr-70b; did you mean coder-70b?"):
                self.checked(server, f"{provider}:m", f"{provider}:codr-70b")

    @pytest.mark.parametrize("provider", ["anthropic", "openai"])
    def test_a_provider_that_cannot_tell_is_trusted(self, provider: str) -> None:
        with ProviderServer(lambda _: BROKEN) as server:
            self.checked(server, f"{provider}:m")

    @pytest.mark.parametrize(("provider", "variable"), [("anthropic", "A_KEY"), ("openai", "O_KEY")])
    def test_a_refused_key_is_told_by_its_variable(self, provider: str, variable: str) -> None:
        refusing = ProviderServer(lambda _: BROKEN, models=["m"], keys=["another"])
        with refusing as server, pytest.raises(OptionError, match=f"check the key in {variable}") as told:
            self.checked(server, f"{provider}:m")
        assert KEY not in str(told.value)

    @pytest.mark.parametrize("provider", ["anthropic", "openai", "local"])
    def test_nobody_there_is_told_by_its_address(self, provider: str) -> None:
        with ProviderServer(lambda _: BROKEN) as server:
            pass
        with pytest.raises(OptionError, match=f"is a server running at {server.url}"):
            self.checked(server, f"{provider}:m")


def test_models_are_found_by_name() -> None:
    names = ["command:cat", "vllm:a/b:latest"]
    models: Models = open_models(names, read_book(), {"PATH": "/usr/bin:/bin"})
    assert models.names == tuple(names)
    assert [model.name for model in models] == names
    assert len(models) == 2
    assert models["vllm:a/b:latest"].price is not None
    assert replace(CALL, attempt=1) != CALL
