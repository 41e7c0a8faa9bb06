"""Which techniques a kernel uses, as facts: each kernel is classified once, by whatever run comes first.

A kernel is what its fingerprint says; without one, its source. The compiled classifier reads code and asks nobody. A
model's classification that failed is recorded under the model's key as the compiled one, so that it is neither asked
for again in this run nor taken for the model's word.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType

from tilesmith.core.facts import TechniqueVector
from tilesmith.core.problem import content_id
from tilesmith.core.profile import Launch
from tilesmith.core.seams import Journal
from tilesmith.core.trial import Trial
from tilesmith.propose import detectors, knobs, program
from tilesmith.propose.beam import distinct, kernel_id
from tilesmith.propose.classification import Unreadable, classification_prompt, read_classification
from tilesmith.propose.detectors import DETECTORS
from tilesmith.propose.diagnose import multiprocessors
from tilesmith.propose.program import parse
from tilesmith.propose.taxonomy import Taxonomy, Technique, default, load_taxonomy

__all__ = [
    "COMPILED",
    "Agreement",
    "Taxonomy",
    "Technique",
    "Unreadable",
    "agreement",
    "classification_prompt",
    "classified",
    "clusters",
    "default",
    "load_taxonomy",
    "read_classification",
    "unclassified",
    "vector",
    "vector_key",
    "vectors",
]

COMPILED = "compiled"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a model and the compiled classifier say the same of one technique."""

    technique: str
    both: int
    """Kernels in which both see it."""
    neither: int
    only_compiled: int
    only_model: int

    @property
    def share(self) -> float:
        """Of the kernels on which they agree, 0 to 1; 1 where there is none."""
        kernels = self.both + self.neither + self.only_compiled + self.only_model
        return (self.both + self.neither) / kernels if kernels else 1.0


def vector(trial: Trial, taxonomy: Taxonomy | None = None) -> frozenset[str]:
    """The names of the techniques that a trial's candidate shows; none for a source that is not Python.

    Entries that no detector reads are not among them. The packaged taxonomy without one.
    """
    return _vector(trial.candidate.source, trial.launches, multiprocessors(trial), taxonomy or default())


@lru_cache(maxsize=4096)
def _vector(source: str, launches: tuple[Launch, ...], count: int, taxonomy: Taxonomy) -> frozenset[str]:
    try:
        read = parse(source, launches, count)
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    return frozenset(entry.name for entry in taxonomy.entries if entry.shows and DETECTORS[entry.shows](read))


@cache
def revision() -> str:
    """Of the code that reads: what an older one recorded is not taken for this one's."""
    readers: tuple[ModuleType, ...] = (detectors, program, knobs)
    return content_id("".join(inspect.getsource(module) for module in readers))


def vector_key(fingerprint: str, taxonomy: str, classifier: str) -> str:
    """Of a kernel's vector: its fingerprint, the taxonomy's id, and "compiled" or the model's name.

    The compiled classifier's own code counts: a detector that is mended reads every kernel again.
    """
    reader = f"{COMPILED}:{revision()}" if classifier == COMPILED else classifier
    return f"{content_id(repr((fingerprint, taxonomy)))}/{reader}"


def vectors(trials: Sequence[Trial], taxonomy: Taxonomy, journal: Journal) -> Mapping[str, TechniqueVector]:
    """The compiled classifier's vectors by `kernel_id`; those that the journal does not know are recorded in it."""
    own = _own(journal)
    found: dict[str, TechniqueVector] = {}
    for trial in trials:
        kernel = kernel_id(trial)
        if kernel in found:
            continue
        known = _compiled(trial, taxonomy, journal, own)
        found[kernel] = known or TechniqueVector(
            vector_key(kernel, taxonomy.id, COMPILED), COMPILED, vector(trial, taxonomy)
        )
        if known is None:
            journal.note(found[kernel])
    return found


def unclassified(
    trials: Sequence[Trial],
    taxonomy: Taxonomy,
    classifier: str,
    journal: Journal,
    width: int | None = None,
    *,
    both: bool = False,
) -> tuple[Trial, ...]:
    """The kernels that a model still has to be asked about, the fastest first; none for the compiled classifier.

    `classifier` is the model's name. With `width`, the pool's, only those that can matter now: the pool of `width`
    clusters or more is made of the fastest of each, so that nothing behind the kernel that opens the last cluster
    needs a vector. Ask about the first few, record, and come again until none is left: the pool is then what it were
    with all classified. `both` as in `clusters`.
    """
    if classifier == COMPILED:
        return ()
    own = _own(journal)
    asked: list[Trial] = []
    opened: set[frozenset[str]] = set()
    for trial in distinct(trials):
        if width is not None and len(opened) >= width:
            break
        known = _recalled(trial, taxonomy, classifier, journal, own)
        if known is None:
            asked.append(trial)
        elif known.classifier == classifier:
            compiled = _compiled(trial, taxonomy, journal, own)
            names = compiled.names if compiled else vector(trial, taxonomy)
            opened.add(_joined(names, known.names, taxonomy) if both else known.names)
    return tuple(asked)


def classified(
    trial: Trial, taxonomy: Taxonomy, classifier: str, reply: str | None, journal: Journal
) -> TechniqueVector:
    """Record what a model replied about a kernel; the compiled vector where it cannot be read, or never came (None)."""
    kernel = kernel_id(trial)
    key = vector_key(kernel, taxonomy.id, classifier)
    try:
        if reply is None:
            raise Unreadable("There is no reply.")
        fact = TechniqueVector(key, classifier, read_classification(reply, taxonomy))
    except Unreadable:
        fact = TechniqueVector(key, COMPILED, vectors([trial], taxonomy, journal)[kernel].names)
    journal.note(fact)
    return fact


def clusters(
    trials: Sequence[Trial], taxonomy: Taxonomy, journal: Journal, model: str | None = None, *, both: bool = False
) -> Callable[[Trial], frozenset[str]]:
    """For each trial the techniques by which selection groups it: the compiled vector, or the model's.

    With `both` the compiled vector says what it can, and the model says the rest. A kernel about which the model gave
    no answer stands with the fastest kernel that compiles to the same techniques and has one: a failed classification
    gains it no place of its own.
    """
    fastest = distinct(trials)
    compiled = {kernel: known.names for kernel, known in vectors(fastest, taxonomy, journal).items()}
    labels = dict(compiled)
    if model is not None:
        own = _own(journal)
        alike: dict[frozenset[str], frozenset[str]] = {}
        silent: list[str] = []
        for trial in fastest:
            kernel = kernel_id(trial)
            known = _recalled(trial, taxonomy, model, journal, own)
            if known is None or known.classifier != model:
                silent.append(kernel)
                continue
            labels[kernel] = _joined(compiled[kernel], known.names, taxonomy) if both else known.names
            alike.setdefault(compiled[kernel], labels[kernel])
        labels |= {kernel: alike.get(compiled[kernel], compiled[kernel]) for kernel in silent}
    return lambda trial: labels[kernel_id(trial)] if kernel_id(trial) in labels else vector(trial, taxonomy)


def agreement(trials: Sequence[Trial], taxonomy: Taxonomy, model: str, journal: Journal) -> tuple[Agreement, ...]:
    """The two classifiers compared on every correct kernel that a model classified, one entry a detector reads."""
    fastest = distinct(trials)
    compiled = vectors(fastest, taxonomy, journal)
    own = _own(journal)
    pairs = [
        (compiled[kernel_id(trial)].names, known.names)
        for trial in fastest
        if (known := _recalled(trial, taxonomy, model, journal, own)) and known.classifier == model
    ]
    found = []
    for entry in taxonomy.entries:
        if entry.shows:
            count = Counter((entry.name in code, entry.name in word) for code, word in pairs)
            found.append(
                Agreement(entry.name, count[True, True], count[False, False], count[True, False], count[False, True])
            )
    return tuple(found)


def _own(journal: Journal) -> dict[str, TechniqueVector]:
    """This run's: they go before what other runs recorded since, so that a resumed run ends as it would have."""
    return {fact.key: fact for fact in journal.facts(TechniqueVector)}


def _compiled(
    trial: Trial, taxonomy: Taxonomy, journal: Journal, own: Mapping[str, TechniqueVector]
) -> TechniqueVector | None:
    key = vector_key(kernel_id(trial), taxonomy.id, COMPILED)
    return own.get(key) or journal.recall(TechniqueVector, key)


def _recalled(
    trial: Trial, taxonomy: Taxonomy, model: str, journal: Journal, own: Mapping[str, TechniqueVector]
) -> TechniqueVector | None:
    """What is known under a model's key; another run's failure is no knowledge."""
    key = vector_key(kernel_id(trial), taxonomy.id, model)
    if key in own:
        return own[key]
    known = journal.recall(TechniqueVector, key)
    return known if known is not None and known.classifier == model else None


def _joined(compiled: frozenset[str], told: frozenset[str], taxonomy: Taxonomy) -> frozenset[str]:
    """What the code shows, and what a model says of the entries that it cannot show."""
    return compiled | (told & {entry.name for entry in taxonomy.entries if entry.shows is None})
