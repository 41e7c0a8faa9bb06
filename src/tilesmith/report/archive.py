"""What the page shows of a trial when it is asked: sources, replies, profiles. Compressed, because they are alike."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilesmith.core.facts import Analysis
from tilesmith.core.profile import Profile
from tilesmith.core.trial import Timing, Trial
from tilesmith.report.chronicle import Chronicle
from tilesmith.report.family import Family, Member
from tilesmith.report.words import (
    error_of,
    figure,
    harmless,
    micros,
    one_line,
    seconds,
    time_of,
    verdict_message,
    verdict_name,
)

LIMIT_BYTES = 3_300_000
"""Of the archive as it stands in the page; with everything else that stays below 5 MB for 2,000 trials."""
FASTEST = 200
"""Trials whose texts stay, beside the best's ancestors, where there is no room for all."""
Entry = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Archive:
    """Deflated JSON in base64: an object with an entry for each trial, by its number."""

    text: str
    left_out: str
    """What had no room, in words; empty where everything has."""


def archive(chronicle: Chronicle, family: Family, limit_bytes: int = LIMIT_BYTES) -> Archive:
    """Everything where there is room for it; else without replies, then without the sources of what is not fast."""
    entries = {str(member.number): entry for member, entry in _entries(chronicle, family)}
    if len(packed := _packed(entries)) <= limit_bytes:
        return Archive(packed, "")
    bare = {number: {**entry, "reply": None} for number, entry in entries.items()}
    if len(packed := _packed(bare)) <= limit_bytes:
        return Archive(packed, "replies of models")
    ranked = sorted(
        (m for m in family.members.values() if m.trial.time_us is not None), key=lambda m: m.trial.time_us or 0
    )
    kept = {str(m.number) for m in ranked[:FASTEST]} | {str(m.number) for m in family.members.values() if m.winning}
    few = {n: entry if n in kept else {**entry, "source": None} for n, entry in bare.items()}
    if len(packed := _packed(few)) <= limit_bytes:
        return Archive(
            packed, f"replies of models, and every source but the {len(kept):,} of the fastest and the best's ancestors"
        )
    none = {n: {**entry, "source": None} for n, entry in bare.items()}
    if len(packed := _packed(none)) <= limit_bytes:
        return Archive(packed, "replies of models and sources")
    return Archive(_packed({}), "everything about single trials")


def unpacked(text: str) -> Mapping[str, Entry]:
    """What `Archive.text` holds, as the page reads it."""
    found: Mapping[str, Entry] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found


def _packed(entries: Mapping[str, Entry]) -> str:
    # ASCII, so that half of a surrogate pair in a source does no harm.
    return base64.b64encode(zlib.compress(json.dumps(entries).encode("ascii"), 7)).decode("ascii")


def _entries(chronicle: Chronicle, family: Family) -> list[tuple[Member, Entry]]:
    """In the order of the family, so that a source follows the one that it was made from."""
    replies = {reply.key.rpartition("/")[0]: reply.text for reply in chronicle.record.replies}
    analyses = {analysis.key.partition("/")[0]: analysis for analysis in chronicle.analyses}
    profiles = chronicle.profiles()
    names = {
        trial.candidate.id: "the start kernel" if trial.candidate.origin == "start" else f"trial {number}"
        for number, trial in chronicle.numbered()
    }
    return [
        (
            member,
            {
                "title": f"Trial {member.number}",
                "by": one_line(member.author),
                "verdict": verdict_name(member.trial.verdict),
                "facts": _facts(chronicle, member, names),
                "more": _more(member.trial),
                "parent": member.parent,
                "source": member.trial.candidate.source,
                "launches": _launches(member.trial),
                "profile": _profile(profiles.get(member.number)),
                "bottlenecks": _bottlenecks(analyses.get(member.trial.fingerprint or "")),
                "reply": _reply(member.trial, replies),
            },
        )
        for member in family.walk()
    ]


def _facts(chronicle: Chronicle, member: Member, names: Mapping[str, str]) -> list[tuple[str, str]]:
    trial = member.trial
    verdict, time, error = trial.verdict, time_of(trial.verdict), error_of(trial.verdict)
    rows = [("verdict", verdict_name(verdict) + (" (checked a second time, harder)" if trial.confirmed else ""))]
    if stage := getattr(verdict, "stage", None):
        rows.append(("stage", str(stage)))
    if message := verdict_message(verdict):
        rows.append(("because", harmless(message)))
    if time is not None:
        rows.append(("time", figure(time)))
    if isinstance(time, Timing):
        rows.append(("95 % interval", f"{micros(time.low_us)} to {micros(time.high_us)}, {time.samples} samples"))
        if time.gain is not None and time.rival is not None:
            ratio, least, most = time.gain
            against = names.get(time.rival, f"candidate {time.rival}")
            rows.append(("timed in turns", f"{ratio:.3f} times ({least:.3f} to {most:.3f}) as fast as {against}"))
        if time.throttled:
            rows.append(("clock held down", ", ".join(time.throttled)))
    if error is not None:
        rows.append(("error", f"{error:.3g}, where 1 is the limit"))
    if member.gain is not None:
        estimated = "" if isinstance(time, Timing) else ", by estimates"
        rows.append(("against its parent", f"{member.gain:.3f} times as fast{estimated}"))
    way = trial.candidate.direction
    rows.append(("by", one_line(trial.candidate.origin)))
    if way is not None:
        mended = f", repair {trial.candidate.attempt}" if trial.candidate.attempt else ""
        rows.append(
            ("way", f"round {way.round}, parent {way.place}, bottleneck {way.rank}, sample {way.sample}{mended}")
        )
        rows.append(("answers", member.way))
    else:
        rows.append(("round", str(trial.round)))
    if techniques := chronicle.techniques.get(trial.candidate.id):
        rows.append(("techniques", ", ".join(sorted(techniques))))
    return [*rows, *(("seen", one_line(line)) for line in trial.evidence)]


def _more(trial: Trial) -> list[tuple[str, str]]:
    rows = [
        ("cost", f"{seconds(trial.cost.wall_s)} of judging, {trial.cost.gpu_s:.2f} s of a GPU alone"),
        ("walls", one_line(trial.protection)),
        ("candidate", trial.candidate.id),
    ]
    return [*rows, ("fingerprint", trial.fingerprint)] if trial.fingerprint else rows


def _launches(trial: Trial) -> list[list[str]]:
    return [
        [
            one_line(launch.kernel),
            " × ".join(map(str, launch.grid)),
            *(f"{n:,}" for n in (launch.warps, launch.stages, launch.shared_bytes, launch.registers, launch.spills)),
        ]
        for launch in trial.launches
    ]


def _profile(profile: Profile | None) -> Entry | None:
    if profile is None:
        return None
    source = "counted by the hardware (ncu)" if profile.source == "ncu" else "estimated from the compiled code"
    return {
        "words": f"{source}, {profile.target}",
        "rows": [
            [
                one_line(each.kernel),
                f"{each.time_us:,.4g}",
                each.limiter,
                f"{each.dram_bytes / 1e6:,.4g}",
                f"{each.flops / 1e9:,.4g}",
                f"{100 * each.occupancy:.0f}",
                f"{each.waves:.3g}",
            ]
            for each in profile.kernels
        ],
        "metrics": [
            [one_line(each.kernel), name, f"{value:,.6g}"] for each in profile.kernels for name, value in each.metrics
        ],
    }


def _bottlenecks(analysis: Analysis | None) -> Sequence[tuple[str, str, str]]:
    found = analysis.bottlenecks if analysis else ()
    return [(each.limiter, harmless(each.cause), harmless(each.advice)) for each in found]


def _reply(trial: Trial, replies: Mapping[str, str]) -> str | None:
    way = trial.candidate.direction
    return None if way is None else replies.get(f"{way.key}/{trial.candidate.attempt}")
