"""The models of a run: opened together, before anything is paid for."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tilesmith.core.errors import OptionError
from tilesmith.core.names import meant
from tilesmith.core.reply import Prompt, Reply
from tilesmith.propose.chat import tokens
from tilesmith.propose.chat.book import ModelBook, Price, Provider
from tilesmith.propose.chat.command import CommandChat
from tilesmith.propose.chat.hosted import HostedChat, Retry
from tilesmith.propose.chat.lane import Lane
from tilesmith.propose.chat.recorded import RecordedChat, read_replies
from tilesmith.propose.chat.seam import Call, Chat
from tilesmith.propose.chat.wire import Wire
from tilesmith.propose.chat.words import Secrets, sentence

Say = Callable[[str], None]


class Model:
    """One model of a run: a `Chat` that is set aside when it keeps failing, and that knows its price."""

    def __init__(self, chat: Chat, price: Price | None, failures: int, say: Say) -> None:
        self.name = chat.name
        self.price = price
        self._chat = chat
        self._failures = failures
        self._failed = 0
        self._say = say

    @property
    def set_aside(self) -> bool:
        """Whether it failed so often that it is not asked any more."""
        return self._failed >= self._failures

    def estimate_usd(self, prompt: Prompt, call: Call) -> float | None:
        """The most that this call can cost, retries included; None where the price is not known.

        Holds because what an attempt sent is paid for at most once: a stream that broke off is not asked for again.
        """
        if self.price is None:
            return None
        return self.price.most_usd(tokens.at_most(prompt), call.max_output_tokens)

    def estimate_tokens(self, prompt: Prompt, call: Call) -> int:
        """The most tokens that this call can use."""
        return tokens.at_most(prompt) + call.max_output_tokens

    async def ask(self, prompt: Prompt, call: Call) -> Reply:
        if self.set_aside:
            fault = f"{self.name} was set aside after {self._failures} failures in a row"
            return Reply(call.key, self.name, "", usd=0.0, attempts=0, fault=fault)
        reply = await self._chat.ask(prompt, call)
        if reply.fault is None:
            # Replies that were on their way when it was set aside change nothing: once out, a model stays out.
            self._failed = self._failed if self.set_aside else 0
        elif reply.attempts and not self.set_aside:
            # Who was never asked, for want of a place in the queue, did not fail.
            self._failed += 1
            if self.set_aside:
                times = f"{self._failures} times in a row"
                self._say(f"{self.name} failed {times} and is set aside; the last time: {reply.fault}.")
        return reply

    async def close(self) -> None:
        await self._chat.close()


class Models:
    """The models of a run, by name. Belongs to the event loop in which the first of them is asked."""

    def __init__(self, models: Sequence[Model], wires: Mapping[str, Wire], book: ModelBook, secrets: Secrets):
        self._models = {model.name: model for model in models}
        self._wires = dict(wires)
        self._book = book
        self._secrets = secrets

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were opened."""
        return tuple(self._models)

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def require_prices(self) -> None:
        """Raises `OptionError` if a model's price is not known: a budget in USD would not hold."""
        for model in self:
            if model.price is None:
                raise OptionError(
                    f"the price of {model.name} is not known, so --budget-usd cannot be kept; "
                    f"add it under prices in the models file, or use --budget-tokens."
                )

    async def check(self, seconds: float = 20.0) -> None:
        """Ask every provider for its models: that costs nothing, and tells a wrong key, address or name at once.

        Raises `OptionError`. A provider that cannot tell, or not in time, is trusted.
        """
        hosted = [model.name for model in self if model.name.partition(":")[0] in self._wires]
        for fault in await asyncio.gather(*(self._lack(name, seconds) for name in hosted)):
            if fault is not None:
                raise OptionError(self._secrets.scrubbed(fault))

    async def _lack(self, name: str, seconds: float) -> str | None:
        provider_name, _, model = name.partition(":")
        provider, wire = self._book.providers[provider_name], self._wires[provider_name]
        try:
            async with asyncio.timeout(seconds):
                offered = await wire.offers(model)
        except TimeoutError:
            return None
        except Exception as error:
            # The border to another machine, as in `HostedChat`.
            fault = wire.fault(error, begun=False)
            said = sentence(fault.message)
            if fault.status in (401, 403):
                return f"{name} cannot be used: {said}; check the key in {provider.key_env or 'key_env'}."
            if said.startswith("no connection"):
                return f"{name} cannot be used: {said}; is a server running at {provider.base_url}?"
            return None
        return None if offered is None else f"unknown model {name}; {meant(model, offered)}"

    async def close(self) -> None:
        """Gives up every connection."""
        for model in self:
            await model.close()


def open_models(
    names: Sequence[str],
    book: ModelBook,
    environ: Mapping[str, str],
    say: Say = lambda _: None,
    retry: Retry | None = None,
    failures: int = 5,
) -> Models:
    """The models of these names, each "provider:model", ready to be asked; nothing is sent yet.

    `say` hears, in sentences, of every model whose price is not known and of every model that is set aside after so
    many `failures` in a row. Keys are taken from `environ` and go nowhere but to their provider.
    Raises `OptionError` for an unknown provider, a missing key, a missing SDK, a program or file that is not there.
    """
    if not names:
        raise OptionError("no model is named; write --models provider:model.")
    lanes: dict[str, Lane] = {}
    wires: dict[str, Wire] = {}
    models: list[Model] = []
    # Every name is judged before anything is built.
    named = [_named(name, names, book) for name in names]
    keys = {provider.name: _key(name, provider, environ) for name, provider in zip(names, named, strict=True)}
    secrets = Secrets(value for variable in book.key_variables if (value := environ.get(variable, "").strip()))
    for name, provider in zip(names, named, strict=True):
        lane = lanes.setdefault(provider.name, Lane(provider.concurrent, provider.tokens_per_minute))
        price = book.price(name)
        chat: Chat
        if provider.protocol == "replay":
            chat = RecordedChat(name, read_replies(Path(_rest(name))))
        elif provider.protocol == "command":
            chat = CommandChat(name, _argv(name, environ), environ, lane, price, secrets)
        else:
            wire = wires.get(provider.name) or _wire(name, provider, keys[provider.name])
            wires[provider.name] = wire
            chat = HostedChat(name, wire, lane, price, retry or Retry(), secrets)
        models.append(Model(chat, price, failures, say))
        if price is None:
            say(f"the price of {name} is not known: what it costs is not counted.")
    return Models(models, wires, book, secrets)


def _rest(name: str) -> str:
    return name.partition(":")[2].strip()


def _named(name: str, names: Sequence[str], book: ModelBook) -> Provider:
    provider_name, colon, _ = name.partition(":")
    if list(names).count(name) > 1:
        raise OptionError(f"the model {name} is named twice; --samples-per-prompt asks one model more often.")
    if not colon:
        like = [known for known in book.prices if known.partition(":")[2] == name]
        hint = f"did you mean {like[0]}?" if like else f"such as {next(iter(book.prices), 'openai:NAME')}."
        raise OptionError(f"the model {name!r} should be written provider:model; {hint}")
    if provider_name not in book.providers:
        raise OptionError(f"unknown provider {provider_name!r} in {name!r}; {meant(provider_name, book.providers)}")
    if not _rest(name):
        raise OptionError(f"{name!r} names no model of {provider_name}; write {provider_name}:NAME.")
    return book.providers[provider_name]


def _key(name: str, provider: Provider, environ: Mapping[str, str]) -> str | None:
    if provider.key_env is None:
        return None
    key = environ.get(provider.key_env, "").strip()
    if not key:
        raise OptionError(f"{name} needs a key: set the environment variable {provider.key_env}.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OptionError(f"{name} needs a key, and what {provider.key_env} holds is none; copy it again.")
    return key


def _argv(name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        argv = tuple(shlex.split(_rest(name)))
    except ValueError as error:
        raise OptionError(f"{name!r} cannot be read as a command ({error}); check its quotes.") from None
    if not argv or shutil.which(argv[0], path=environ.get("PATH")) is None:
        raise OptionError(f"{name!r}: there is no program {argv[0] if argv else ''!r}; check the path of the command.")
    return argv


def _wire(name: str, provider: Provider, key: str | None) -> Wire:
    assert provider.base_url is not None
    # Imported here: an SDK takes half a second, and most runs need one or none.
    try:
        if provider.protocol == "anthropic":
            from tilesmith.propose.chat.messages import Messages

            return Messages(provider.base_url, key, provider.idle_s)
        from tilesmith.propose.chat.completions import Completions

        return Completions(provider.base_url, key, provider.idle_s, provider.output_limit)
    except ImportError as error:
        raise OptionError(f"{name} needs the Python package {error.name}; install tilesmith[models].") from None
