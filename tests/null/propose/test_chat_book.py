"""Providers and prices, packaged and of the user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.core.errors import OptionError
from tilesmith.core.reply import Usage
from tilesmith.propose.chat import ModelBook, Price, Provider, Rates, default_path, read_book
from tilesmith.propose.chat.book import BUILT_IN

COUNT = st.integers(0, 1_000_000)
USD = st.floats(0, 1000)
RATES = st.builds(Rates, USD, USD, USD, USD)


def own(path: Path, text: str) -> ModelBook:
    file = path / "models.yaml"
    file.write_text(text)
    return read_book(file)


def test_what_is_packaged_can_be_used() -> None:
    book = read_book()
    assert book.as_of is not None
    assert {"anthropic", "openai", "gemini", "openrouter", "vllm", "ollama", "command", "replay"} <= set(book.providers)
    assert len(book.prices) > 20
    for name, price in book.prices.items():
        assert book.providers[name.partition(":")[0]].key_env
        # Cached tokens are cheaper to read than new ones, and answers dearer than questions.
        assert 0 < price.rates.cache_read <= price.rates.input <= price.rates.cache_write
        assert price.rates.input < price.rates.output
        if price.long is not None:
            assert price.long.input > price.rates.input
            assert price.long_above


def test_a_dated_name_costs_what_the_plain_one_does() -> None:
    book = read_book()
    plain = book.price("anthropic:claude-haiku-4-5")
    assert plain is not None
    assert book.price("anthropic:claude-haiku-4-5-20251001") == plain
    assert book.price("openai:gpt-5.4-2026-03-05") == book.price("openai:gpt-5.4")
    assert book.price("openai:gpt-99") is None
    assert book.price("command:x") is None


def test_what_runs_on_the_users_machine_is_free() -> None:
    book = read_book()
    for name in ("vllm:any/model", "ollama:qwen:7b", "replay:x"):
        price = book.price(name)
        assert price is not None
        assert price.usd(Usage(1000, 1000)) == 0


@given(RATES, RATES, st.integers(1, 500_000), COUNT, COUNT, COUNT, COUNT)
def test_no_call_costs_more_than_its_bound(
    rates: Rates, long: Rates, above: int, new: int, out: int, read: int, write: int
) -> None:
    for price in (Price(rates), Price(rates, above, long)):
        usage = Usage(new, out, read, write)
        assert price.usd(usage) <= price.most_usd(new + read + write, out) * (1 + 1e-9) + 1e-12


def test_long_prompts_cost_more_and_cached_tokens_make_them_long() -> None:
    price = Price(Rates(1, 10, 0.1, 1.25), 1000, Rates(2, 20, 0.2, 2.5))
    assert price.usd(Usage(1000, 100)) == pytest.approx(2000e-6)
    assert price.usd(Usage(1, 100, cache_read_tokens=1000)) == pytest.approx(2e-6 + 2000e-6 + 200e-6)


def test_the_users_file_adds_and_changes(tmp_path: Path) -> None:
    book = own(
        tmp_path,
        """
        providers:
          mygate:
            base_url: https://gate.example.org/v1/
            key_env: MYGATE_KEY
            concurrent: 16
            tokens_per_minute: 400000
            idle_s: 30
            output_limit: max_completion_tokens
          anthropic: {tokens_per_minute: 2000000}
          vllm: {base_url: "http://10.0.0.7:8000/v1", free: false}
        prices:
          mygate:coder-70b: {input: 0.5, output: 1.5}
          anthropic:claude-opus-5: {input: 1, output: 2, cache_read: 0.5, cache_write: 3,
                                    long: {above: 1000, input: 4, output: 5}}
        """,
    )
    gate = book.providers["mygate"]
    assert (gate.protocol, gate.base_url, gate.key_env) == ("openai", "https://gate.example.org/v1", "MYGATE_KEY")
    assert (gate.concurrent, gate.tokens_per_minute, gate.idle_s) == (16, 400_000, 30.0)
    assert book.providers["anthropic"].tokens_per_minute == 2_000_000
    assert book.providers["anthropic"].key_env == "ANTHROPIC_API_KEY"
    assert book.price("mygate:coder-70b") == Price(Rates(0.5, 1.5, 0.5, 0.5))
    assert book.price("anthropic:claude-opus-5") == Price(Rates(1, 2, 0.5, 3), 1000, Rates(4, 5, 4, 4))
    assert book.price("anthropic:claude-sonnet-5") == read_book().price("anthropic:claude-sonnet-5")
    assert book.price("vllm:x") is None
    assert {"MYGATE_KEY", "OPENAI_API_KEY"} <= book.key_variables


def test_the_documented_file_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text("utf-8")
    book = own(tmp_path, page.split("```yaml\n")[1].split("```")[0])
    assert book.providers["mygate"].key_env == "MYGATE_KEY"
    assert book.price("mygate:coder-70b") is not None
    table = page.split("| key of a provider |")[1].split("\n\n")[0]
    fields = {each.name for each in dataclasses.fields(Provider)} - {"name"}
    assert {row.split("`")[1] for row in table.split("\n") if row.startswith("| `")} == fields
    for each in BUILT_IN:
        assert f"`{each.name}:" in page


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert own(tmp_path, "# nothing yet\n") == read_book()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("provider: {}", "unknown key provider; did you mean providers?"),
        ("providers: {x: {base_ur: http://a}}", "unknown key base_ur in providers: x; did you mean base_url?"),
        ("prices: {'openai:x': {input: 1, outputs: 1}}", "output"),
        ("prices: {'openai:x': {input: 1, output: 1, cache: 1}}", "unknown key cache"),
        ("prices: {'openai:x': {input: -1, output: 1}}", "prices: openai:x: input cannot be used"),
        ("prices: {'openai:x': {input: .nan, output: 1}}", "input cannot be used"),
        ("prices: {'openai:x': {input: '1', output: 1}}", "input cannot be used"),
        ("prices: {gpt-5: {input: 1, output: 1}}", "should be provider:model"),
        ("prices: {'opena:x': {input: 1, output: 1}}", "unknown provider opena in prices; did you mean openai?"),
        ("providers: {x: {}}", "provider x needs a base_url"),
        ("providers: {X Y: {base_url: http://a}}", "cannot be named 'X Y'"),
        ("providers: {x: {base_url: ftp://a}}", "not the address of a server"),
        ("providers: {x: {base_url: 'http://a:b:c'}}", "not the address of a server"),
        ("providers: {x: {base_url: 'https://me:secret@a/v1'}}", "holds more than an address"),
        ("providers: {x: {base_url: http://a, key_env: sk-secret}}", "name of an environment variable"),
        ("providers: {x: {base_url: http://a, concurrent: 0}}", "concurrent cannot be used"),
        ("providers: {x: {base_url: http://a, concurrent: true}}", "concurrent cannot be used"),
        ("providers: {x: {base_url: http://a, idle_s: 0}}", "idle_s cannot be used"),
        ("providers: {x: {base_url: http://a, protocol: openapi}}", "protocol cannot be used"),
        ("providers: {openai: {protocol: anthropic}}", "speaks openai already"),
        ("providers: {run: {protocol: command}}", "cannot be set up here"),
        ("providers: {x: {free: 1}}\nproviders: {}", "twice"),
        ("providers: [", "line 1 is not valid YAML"),
        ("- providers", "the file cannot be used"),
        ("providers: {1: {base_url: http://a}}", "cannot be used"),
        ("? [a]\n: 1", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OptionError) as told:
        own(tmp_path, text)
    assert says in str(told.value)
    assert str(tmp_path / "models.yaml") in str(told.value)
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path, tmp_path / "none.yaml", tmp_path / "bytes.yaml"):
        with pytest.raises(OptionError, match=str(path)):
            read_book(path)


def test_the_default_file_is_used_if_it_exists(tmp_path: Path) -> None:
    assert default_path({}) is None
    assert default_path({"HOME": str(tmp_path)}) is None
    path = tmp_path / ".config" / "tilesmith" / "models.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert default_path({"HOME": str(tmp_path)}) == path
    assert default_path({"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / ".config")}) == path
