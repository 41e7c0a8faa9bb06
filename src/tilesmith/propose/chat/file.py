"""Reads providers and prices: the table that is packaged, and above it the user's own file.

providers:
  mygate:                        # or a built-in one, to change what is said of it
    protocol: openai
    base_url: https://gate.example.org/v1
    key_env: MYGATE_KEY
    concurrent: 16
    tokens_per_minute: 400000
prices:
  mygate:coder-70b: {input: 0.5, output: 1.5}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tilesmith.core.errors import OptionError
from tilesmith.core.names import meant
from tilesmith.propose.chat import book
from tilesmith.propose.chat.book import ModelBook, Price, Provider, Rates
from tilesmith.propose.chat.words import sentence
from tilesmith.propose.strict import Strict

MAX_BYTES = 1 << 20


def read_book(path: Path | None = None) -> ModelBook:
    """The built-in providers and packaged prices, changed and extended by the user's file where there is one.

    Raises `OptionError`, which names the file and the place in it.
    """
    packaged = _parse(files("tilesmith.propose.chat").joinpath("prices.yaml").read_text("utf-8"), "prices.yaml")
    built_in = {each.name: each for each in book.BUILT_IN}
    shipped = ModelBook(built_in, {name: entry.price() for name, entry in packaged.prices.items()}, packaged.as_of)
    return shipped if path is None else _extended(shipped, _parse(_text(path), str(path)), str(path))


def default_path(environ: Mapping[str, str]) -> Path | None:
    """`tilesmith/models.yaml` in the user's folder for configuration, if it exists."""
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else "")
    path = Path(home) / "tilesmith" / "models.yaml"
    return path if home and path.exists() else None


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("it is not the address of a server, such as https://gate.example.org/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it holds more than an address; name the variable with the key in key_env")
    return url.rstrip("/")


def _variable(name: str) -> str:
    # Whoever writes the key itself here must not read it in the message either.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("it is not the name of an environment variable; write the name, never the key itself")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Rates(_Strict):
    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_write: Usd | None = None

    def rates(self) -> Rates:
        # A provider that names no price for cached tokens takes that of others.
        read, write = self.cache_read, self.cache_write
        return Rates(
            self.input, self.output, self.input if read is None else read, self.input if write is None else write
        )


class _Long(_Rates):
    above: Annotated[int, Field(gt=0)]


class _Price(_Rates):
    long: _Long | None = None

    def price(self) -> Price:
        if self.long is None:
            return Price(self.rates())
        return Price(self.rates(), self.long.above, self.long.rates())


class _Provider(_Strict):
    protocol: book.Protocol | None = None
    base_url: Annotated[str, AfterValidator(_url)] | None = None
    key_env: Annotated[str, AfterValidator(_variable)] | None = None
    concurrent: Annotated[int, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = None
    idle_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    free: bool | None = None
    output_limit: book.OutputLimit | None = None


class _File(_Strict):
    as_of: date | None = None
    providers: dict[str, _Provider] = {}
    prices: dict[str, _Price] = {}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OptionError(f"{path} is larger than {MAX_BYTES:,} bytes; it should hold providers and prices.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}); check the path of the models file.") from None


def _parse(text: str, where: str) -> _File:
    try:
        loaded = yaml.load(text, Loader=Strict)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise OptionError(
            f"{where}{line} is not valid YAML: {getattr(error, 'problem', None) or 'unreadable'}."
        ) from None
    except RecursionError:
        raise OptionError(f"{where} is nested too deeply to be read.") from None
    try:
        return _File.model_validate({} if loaded is None else loaded)
    except ValidationError as error:
        raise OptionError(f"{where}: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """The first fault, as a sentence that says what is wrong and never what a value was: it could be a key."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = [str(part) for part in first["loc"] if part != "[key]"]
    if first["type"] == "extra_forbidden":
        where = f" in {': '.join(place[:-1])}" if place[:-1] else ""
        return f"unknown key {place[-1]}{where}; {meant(place[-1], _known(place[:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{': '.join(place) or 'the file'} cannot be used: {sentence(message[0].lower() + message[1:])}."


def _known(place: list[str]) -> list[str]:
    if not place:
        return [name for name in _File.model_fields if name != "as_of"]
    if place[0] == "providers":
        return list(_Provider.model_fields)
    return list((_Long if place[-1] == "long" else _Price).model_fields)


def _extended(shipped: ModelBook, own: _File, where: str) -> ModelBook:
    providers = dict(shipped.providers)
    for name, entry in own.providers.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            raise OptionError(f"{where}: a provider cannot be named {name!r}; use small letters, digits, - and _.")
        known = providers.get(name)
        if known is not None and entry.protocol not in (None, known.protocol):
            raise OptionError(f"{where}: {name} speaks {known.protocol} already; give the new provider its own name.")
        start = known or Provider(name, entry.protocol or "openai")
        provider = replace(start, **entry.model_dump(exclude_none=True))
        if provider.protocol in ("anthropic", "openai") and provider.base_url is None:
            raise OptionError(f"{where}: the provider {name} needs a base_url: where is it?")
        if provider.protocol in ("command", "replay") and (known is None or entry.base_url or entry.key_env):
            raise OptionError(f"{where}: {name} cannot be set up here: {provider.protocol} needs no server and no key.")
        providers[name] = provider
    prices = dict(shipped.prices)
    for name, price in own.prices.items():
        provider_name, colon, model = name.partition(":")
        if not colon or not model:
            raise OptionError(f"{where}: {name} in prices should be provider:model.")
        if provider_name not in providers:
            raise OptionError(f"{where}: unknown provider {provider_name} in prices; {meant(provider_name, providers)}")
        prices[name] = price.price()
    return ModelBook(providers, prices, shipped.as_of)
