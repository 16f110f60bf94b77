"""The artifact's appendix, ARTIFACT.md: what it is, what it needs, and how to check each claim."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from discovery_xp.artifact.claims import Claim
from discovery_xp.artifact.collecting import Collected
from discovery_xp.artifact.judging import Verdict
from discovery_xp.artifact.levels import in_words
from discovery_xp.artifact.source import Source
from discovery_xp.store import RunRecord
from discovery_xp.text import printable

NAME = "ARTIFACT.md"
# Of emulated hosts, as docs/installation.md has it: packages, wheels, the hosts' root tree.
TOOLS_GB = 4.0
_LOCAL = "local"


@dataclass(frozen=True)
class Need:
    """What making a claim's runs anew takes: seconds by a clock, hosts, MB of records."""

    seconds: float
    hosts: int
    record_mb: float


def need_of(sides: Sequence[Collected]) -> Need:
    """Return what it takes to make runs such as these, one of each, as long as these took."""
    records = [each.run.load() for each in sides]
    return Need(
        sum(sum(record.stages_s.values()) for record in records),
        max((hosts_of(record) for record in records), default=0),
        sum(each.bytes for each in sides) / 1e6,
    )


def hosts_of(record: RunRecord) -> int:
    """Return how many hosts a run had: a master, and those of the sites."""
    return 1 + record.controllers + record.computes + record.data


def appendix(
    name: str,
    title: str,
    description: str,
    collected: Sequence[Collected],
    verdicts: Sequence[Verdict],
    needs: Mapping[int, Need],
    source: Source,
    files: Mapping[str, str],
) -> str:
    """Return the page; `needs` is by a claim's number, `files` says what each file is."""
    records = [each.run.load() for each in collected]
    parts = [
        f"# Artifact: {_text(title)}\n",
        f"{_text(description)}\n" if description else "",
        f"{len(records)} runs with all that they measured, the source that made them, "
        f"{len(verdicts) or 'no'} claims about them, and a command that makes each claim's runs "
        "anew and says whether it still holds.\n",
        "## Is it whole?\n",
        f"```sh\nsha256sum --quiet -c SHA256SUMS      # in the folder '{name}'\n```\n",
        _requirements(records),
        _beginning(name, source),
        _claims(name, verdicts, needs, source),
        "## What is in it\n",
        _table(("File", ""), [(f"`{each}`", words) for each, words in files.items()]),
        _runs(collected, source),
        "## Again, without the hosts\n",
        "The stored runs alone say what each claim comes to, without root:\n",
        f"```sh\n{_xp(source)} artifact {name} --check\n{_xp(source)} report {name}/records\n```\n",
    ]
    return "\n".join(part for part in parts if part)


def _requirements(records: Sequence[RunRecord]) -> str:
    machines = [record.machine for record in records]
    lines = []
    if any(machine.provider == _LOCAL for machine in machines):
        own = [machine for machine in machines if machine.provider == _LOCAL]
        cpus, memory = max(m.cpus for m in own), max(m.memory_bytes for m in own)
        lines = [
            "- bare Debian 12, as root, with python3 and git; all else is installed by `./xp`",
            f"- {cpus} cores, {round(memory / 2**30)} GiB of memory (as the runs had)",
            f"- {TOOLS_GB:g} GB of disk for packages and the hosts' root tree, and what the table "
            "says for records",
            "- the network, the first time: Debian's archive and PyPI",
        ]
    others = sorted({machine.provider for machine in machines} - {_LOCAL})
    if others:
        lines.append(
            f"- for the runs on {', '.join(others)}: such hosts, as their topology.yaml says"
        )
    lines.append("- for the stored records alone: Python 3.11 or newer, no rights")
    models = sorted({f"{machine.cpus} x {machine.cpu_model}" for machine in machines})
    lines.append(f"- the runs were made on {_text('; '.join(models))}")
    return "## Requirements\n\n" + "\n".join(lines) + "\n"


def _beginning(name: str, source: Source) -> str:
    if source.own is None:
        return (
            "## Beginning\n\nThe toolkit's source isn't in this artifact: take discovery-xp from "
            "where you have it from, and use its `./xp` below.\n"
        )
    return (
        "## Beginning\n\nBeside the folder, so that its checksums go on to hold:\n\n"
        f"```sh\ntar xzf {name}/{source.own}\n{_xp(source)} --version\n```\n\n"
        "The first command installs what is missing; the first run also makes the root tree of "
        "emulated hosts, and says how long that takes.\n"
    )


def _xp(source: Source) -> str:
    if source.own is None:
        return "./xp"
    return source.own.rpartition("/")[2].removesuffix(".tar.gz") + "/xp"


def _claims(
    name: str, verdicts: Sequence[Verdict], needs: Mapping[int, Need], source: Source
) -> str:
    if not verdicts:
        return "## Claims\n\nThere are none.\n"
    parts = [
        "## Claims\n",
        "Each command makes one run for each side of a claim, prints what it measured, and ends "
        "with code 0 where the claim holds within its tolerance, 1 where it doesn't. Times are "
        "those that the stored runs took, deployment included.\n",
        _table(
            (
                "#",
                "Claim",
                "Relation",
                "Stored runs",
                "Verdict",
                "Expected time",
                "Hosts",
                "Records",
            ),
            [_row(each, needs.get(each.claim.number)) for each in verdicts],
        ),
    ]
    for each in verdicts:
        parts.append(_one_claim(each.claim, name, source, each.claim.number in needs))
    return "\n".join(parts)


def _row(verdict: Verdict, need: Need | None) -> tuple[str, ...]:
    claim = verdict.claim
    value = "-" if verdict.value is None else f"{verdict.value:.3g}"
    if verdict.interval is not None:
        value += f" ({verdict.interval.low:.3g} to {verdict.interval.high:.3g})"
    outcome = verdict.outcome + (f": {verdict.remark}" if verdict.remark else "")
    took = ("", "", "") if need is None else (
        _duration(need.seconds), str(need.hosts), f"{need.record_mb:.0f} MB"
    )  # fmt: skip
    return (
        str(claim.number), claim.sentence, f"{claim.figure.words}: {claim.relation}", value,
        outcome, *took,
    )  # fmt: skip


def _one_claim(claim: Claim, name: str, source: Source, can_be_run: bool) -> str:
    sides = " beside those with ".join(in_words(levels) for levels in claim.sides)
    command = (
        f"```sh\n{_xp(source)} reproduce {name} --claim {claim.number}\n```\n"
        if can_be_run
        else "No stored run has these levels, so that there is nothing to make anew.\n"
    )
    return (
        f"**Claim {claim.number}.** {_text(claim.sentence)} Runs with {_text(sides)}.\n\n{command}"
    )


def _runs(collected: Sequence[Collected], source: Source) -> str:
    rows = []
    for each in collected:
        record = each.run.load()
        verdict = "" if record.validity is None else record.validity.verdict
        status = record.status if not record.is_partial else f"partial: {record.why_partial}"
        commit = (record.commit or "")[:12]
        if record.commit in source.of_runs:
            commit = f"{commit}, in `{source.of_runs[record.commit]}`"
        rows.append(
            (f"`{each.place}`", record.backend, str(record.sites), _latency(record),
             str(record.vms.asked), f"{record.time_scale:g}", status, verdict, commit)
        )  # fmt: skip
    head = ("Run", "Back end", "Sites", "One-way delay", "VMs", "Time scale", "Status", "Verdict",
            "Commit")  # fmt: skip
    return "## The runs\n\n" + _table(head, rows)


def _latency(record: RunRecord) -> str:
    if record.sites == 1:
        return ""
    return "mixed" if record.latency_ms is None else f"{record.latency_ms:g} ms"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """Return text of anybody's as Markdown takes it for text: on a line, without markup."""
    shown = printable(" ".join(text.split()))
    return re.sub(r"<(?=[A-Za-z!/?])", "&lt;", shown)
