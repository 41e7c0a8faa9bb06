"""Presets: the packaged ones have the shapes that they promise, and files of the user's own are read strictly."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from tilesmith.config.presets import CLUSTERING_KEYS, KEYS, Preset, TechniqueClustering, load_preset, presets
from tilesmith.core.errors import OptionError

SHAPES = {
    "greedy": (1, 1, 1, 1),
    "smoke": (1, 3, 3, 1),
    "beam": (2, 2, 1, 1),
    "diverse": (5, 3, 3, 2),
    "concentrated": (2, 3, 3, 5),
    "clustered": (2, 3, 3, 5),
    "clustered_xl": (5, 3, 3, 5),
}
DIRECTIONS = {
    "greedy": 1, "smoke": 9, "beam": 4, "diverse": 90, "concentrated": 90, "clustered": 90, "clustered_xl": 225,
}  # fmt: skip


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_packaged_presets_have_their_shapes() -> None:
    assert set(presets()) == set(SHAPES)
    for name, shape in SHAPES.items():
        preset = load_preset(name)
        given = (
            preset.candidate_pool_size, preset.num_bottlenecks, len(preset.models), preset.samples_per_prompt,
        )  # fmt: skip
        assert (preset.name, given, preset.directions) == (name, shape, DIRECTIONS[name])
        assert preset.technique_clustering.enabled == name.startswith("clustered")


def test_the_narrowest_preset_comes_first() -> None:
    widths = [load_preset(name).directions for name in presets()]
    assert widths == sorted(widths)


def test_rounds_patience_and_slots() -> None:
    assert (load_preset("greedy").rounds, load_preset("greedy").patience) == (None, 5)
    assert {name: load_preset(name).rounds for name in SHAPES if DIRECTIONS[name] >= 90} == dict.fromkeys(
        ("diverse", "concentrated", "clustered", "clustered_xl"), 8
    )
    assert load_preset("clustered_xl").workers_per_gpu == 4


def test_three_models_are_of_three_providers() -> None:
    for name in SHAPES:
        models = load_preset(name).models
        assert len({model.partition(":")[0] for model in models}) == len(models)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_packaged_file_states_every_key_with_a_comment(name: str) -> None:
    text = (files("tilesmith.config") / "presets" / f"{name}.yaml").read_text()
    table = yaml.safe_load(text)
    assert set(table) == set(KEYS)
    assert set(table["technique_clustering"]) == set(CLUSTERING_KEYS)
    assert f"= {DIRECTIONS[name]} direction" in text
    lines = text.splitlines()
    for at, line in enumerate(lines):
        key = line.strip().partition(":")[0]
        if key in (*KEYS, *CLUSTERING_KEYS) and key != "technique_clustering" and not line.startswith("#"):
            assert lines[at - 1].strip().startswith("#"), f"{key} has no comment"


def test_a_file_has_defaults_for_all_but_its_models(tmp_path: Path) -> None:
    preset = load_preset(written(tmp_path, "models: [vllm:mine]\n"))
    assert preset == Preset("mine", ("vllm:mine",))
    assert preset.technique_clustering == TechniqueClustering()


def test_values_are_read_as_they_stand(tmp_path: Path) -> None:
    preset = load_preset(
        written(
            tmp_path,
            "models: ['command:agent --print', 'replay:replies.jsonl']\nanalyst: a:b\nround_seconds: 90\nrepairs: 0\n"
            "proposers: [rewrite]\ntechnique_clustering: {enabled: true, classifier: both, classifier_model: c:d}\n",
        )
    )
    assert preset.models == ("command:agent --print", "replay:replies.jsonl")
    assert (preset.analyst, preset.round_seconds, preset.repairs) == ("a:b", 90.0, 0)
    assert preset.proposers == ("rewrite",)
    assert preset.technique_clustering == TechniqueClustering(True, "both", "c:d")


def test_a_taxonomy_stands_beside_its_preset(tmp_path: Path) -> None:
    text = "models: [a:b]\ntechnique_clustering: {techniques_yaml: my/techniques.yaml}\n"
    clustering = load_preset(written(tmp_path, text)).technique_clustering
    assert clustering.techniques_yaml == str(tmp_path / "my" / "techniques.yaml")
    absolute = load_preset(written(tmp_path, text.replace("my/", "/my/"))).technique_clustering
    assert absolute.techniques_yaml == "/my/techniques.yaml"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("candidate_pool_size: 0", "candidate_pool_size should be a whole number of at least 1, not 0"),
        ("samples_per_prompt: -3", "samples_per_prompt should be a whole number of at least 1, not -3"),
        ("num_bottlenecks: 9", "num_bottlenecks should be a whole number from 1 to 8, not 9"),
        ("rounds: true", "not true"),
        ("rounds: 2.0", "not 2.0"),
        ("rounds: '2'", 'not "2"'),
        ("rounds: 2026-01-01", "rounds should be"),
        ("rounds: [[1]]", "rounds should be"),
        ("patience: 0", "patience should be"),
        ("repairs: -1", "repairs should be"),
        ("workers_per_gpu: 0", "workers_per_gpu should be"),
        ("call_seconds: .nan", "call_seconds should be a number above 0"),
        ("call_seconds: .inf", "call_seconds should be a number above 0"),
        ("round_seconds: 0", "round_seconds should be"),
        ("max_output_tokens: 0", "max_output_tokens should be"),
        ("analyst: gpt", 'analyst should be rules, or a model such as anthropic:claude-opus-5-5, not "gpt"'),
        ("proposers: rewrite", "proposers should be a list"),
        ("proposers: [rewrite, rewrite]", "proposers names rewrite twice"),
        ("sample_per_prompt: 2", "unknown key 'sample_per_prompt'; did you mean samples_per_prompt?"),
        ("name: x", "unknown key 'name'"),
        ("1: x", "unknown key '1'"),
        ("technique_clustering: {enable: true}", "unknown key 'enable'; did you mean enabled?"),
        ("technique_clustering: {enabled: 'yes'}", "enabled should be true or false"),
        ("technique_clustering: {classifier: compile}", "classifier should be one of compiled, llm and both"),
        ("technique_clustering: {max_concurrency: 0}", "max_concurrency should be"),
        ("technique_clustering: null", "technique_clustering should be a table"),
        ("technique_clustering: 3", "technique_clustering should be a table"),
        ("rounds: 1\nrounds: 2", "'rounds' stands twice"),
        ("rounds: &a [*a]", "contains itself"),
        ("rounds: [", "is not valid YAML"),
        ("rounds: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path, f"models: [a:b]\n{line}\n")
    with pytest.raises(OptionError) as caught:
        load_preset(path)
    assert words in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("models", ["[]", "a:b", "[ab]", "['a:']", "[':b']", "[1]", "null", "[a:b, a:b]"])
def test_models_are_different_and_name_their_providers(tmp_path: Path, models: str) -> None:
    with pytest.raises(OptionError, match="models"):
        load_preset(written(tmp_path, f"models: {models}\n"))


@pytest.mark.parametrize("text", ["", "[]", "3", "rounds: 8"])
def test_what_is_no_preset(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionError, match="should"):
        load_preset(written(tmp_path, text))


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean clustered_xl"):
        load_preset("clustered-xxl")
    with pytest.raises(OptionError, match="the known ones are beam, clustered"):
        load_preset("q")
    for name in ("", ".", "..", "__init__"):
        with pytest.raises(OptionError, match="unknown preset"):
            load_preset(name)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist"):
        load_preset(str(tmp_path / "none.yaml"))
    with pytest.raises(OptionError, match="does not exist"):
        load_preset("greedy.yaml")
    with pytest.raises(OptionError, match="is a folder"):
        load_preset(f"{tmp_path}/.")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="not UTF-8"):
        load_preset(str(tmp_path / "bytes.yaml"))
