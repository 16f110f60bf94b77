"""What an outcome is judged by: findings, each of a kind, with a signature for those alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fuzz.bases import CANARY
from tests.fuzz.case import Case

# The kinds of findings, with the table's headings.
KINDS: Mapping[str, str] = {
    "traceback": "tracebacks",
    "hang": "hangs over 15 s",
    "memory": "out of memory",
    "outside": "files touched outside",
    "started": "programs, sockets",
    "leak": "other files shown",
    "left": "left by a refusal",
    "exit": "wrong exit codes",
    "lines": "not one line each",
    "control": "raw control characters",
    "markup": "markup in pages",
}
# A command that is the client of another program becomes that.
MAY_START = {"ssh": ("ssh",), "openstack": ("ssh",)}
# Commands that run no Ansible, whose workers unpickle what they say to each other.
READERS = ("report", "plan", "validate", "schema")
# Addresses of the hosts of the cases' testbeds, which commands may speak to.
HOSTS = ("192.0.2.", "10.", "api.grid5000.fr")
MEMORY_BYTES = 1024 * 2**20
SIGKILL, SIGXCPU = 9, 24
# The exit code of a command that tells of a defect of its own.
DEFECT = 70
LONGEST_LINE = 1500
LONGEST_ERRORS = 60_000
_SHOWN = set("\n\t")
_DIRECTIONS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u2028\u2029")


@dataclass(frozen=True)
class Finding:
    """Something that may not be: its kind, what those alike share, and its words."""

    kind: str
    signature: str
    words: str


def judge(case: Case, outcomes: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """All findings of a case, one of each signature."""
    found: dict[tuple[str, str], Finding] = {}
    for outcome in outcomes:
        for finding in _findings(case, outcome):
            found.setdefault((finding.kind, finding.signature), finding)
    return list(found.values())


def _findings(case: Case, outcome: Mapping[str, Any]) -> list[Finding]:
    step = list(outcome["step"])
    command = case.call or " ".join(step[:2] if step[:1] == ["network"] else step[:1])
    found: list[Finding] = []

    def add(kind: str, signature: str, words: str) -> None:
        found.append(Finding(kind, f"{command}: {signature}", words))

    code, signal = outcome["code"], outcome["signal"]
    if signal or outcome["waited"]:
        where = _last_own(outcome["trace"]) or "?"
        if signal in (SIGKILL, SIGXCPU) or outcome["waited"]:
            kind = "waits" if outcome["waited"] else "computes"
            add(
                "hang",
                f"{kind} in {where}",
                f"{outcome['cpu_s']} s of CPU; {_tail(outcome['trace'])}",
            )
        else:
            add("traceback", f"signal {signal} in {where}", _tail(outcome["trace"]))
        return found
    error = outcome["error"]
    if code == DEFECT and not error:
        error = outcome["stderr"]
    if error.rstrip().endswith("\nMemoryError") or outcome["memory"] > 3 * MEMORY_BYTES:
        add("memory", _last_own(error) or "peak", f"{outcome['memory'] >> 20} MB; {_tail(error)}")
    elif error:
        add("traceback", _signature(error), error[-1500:])
    for kind, words in outcome["seen"]:
        first = words.split()[0]
        if kind == "outside":
            add("outside", f"{first} {_without_numbers(words)}"[:80], words)
        elif kind == "starts":
            program = words.split()[1] if " " in words else words
            if program not in MAY_START.get(step[0] if step else "", ()):
                add("started", f"{first} {program}"[:80], words)
        elif kind == "talks":
            if not any(f"'{address}" in words for address in HOSTS):
                add("started", f"{kind} {_without_numbers(words)}"[:60], words)
        elif case.call or step[0] in READERS:
            add("started", f"{kind} {_without_numbers(words)}"[:60], words)
    stdout, stderr = outcome["stdout"], outcome["stderr"]
    # A testbed's folder is its user's; what is in a run may be anybody's.
    if CANARY.strip() in stdout + stderr and command != "inventory":
        add("leak", "canary", "another file's text is shown")
    if "Traceback (most recent call last)" in stderr and not error:
        add("traceback", "printed: " + _signature(stderr), stderr[-1500:])
    if code not in (0, 1, 2, 130) and not error:
        add("exit", f"code {code}", f"exit code {code}; {stderr[-300:]!r}")
    is_heard = case.streams in ("plain", "ascii", "latin-1")
    if code in (1, 2) and is_heard and not (error or stderr.strip() or stdout.strip()):
        add("exit", f"code {code} without a word", f"exit code {code}, nothing said")
    if (
        case.call is None
        and code == 2
        and (outcome["made"] or outcome["changed"] or outcome["removed"])
    ):
        others = [*outcome["made"], *outcome["changed"], *outcome["removed"]]
        add("left", _without_numbers(others[0])[-60:], f"refused, but changed {others[:5]}")
    if left := [name for name in outcome["made"] if name.startswith("tmp/")]:
        add("left", "in TMPDIR", f"left {left[:5]}")
    for name, text in (("stderr", stderr), ("stdout", stdout)):
        if raw := control_characters(text):
            add("control", f"on {name}", f"{sorted(raw)} in {_around(text, raw)!r}")
    for name, text in outcome["pages"].items():
        suffix = name.rpartition(".")[2]
        if raw := control_characters(text) - {"\r"}:
            add("control", f"in {suffix}", f"{sorted(raw)} in {_around(text, raw)!r}")
        if CANARY.strip() in text:
            add("leak", f"in {suffix}", "another file's text is shown")
        if suffix == "html" and (alive := _ALIVE.search(text)):
            add("markup", "a value became markup", text[alive.start() :][:100])
    if not error and case.call is None:
        for what, line in _lines(code, stderr)[:1]:
            add("lines", what, line)
    if outcome["printed"] > 20 * 2**20:
        add("memory", "endless output", f"{outcome['printed'] >> 20} MB printed")
    return found


# Of the odd values, those that a browser would run if they weren't escaped.
_ALIVE = re.compile(r"<script>alert|<img src=x onerror|<svg/onload")


def control_characters(text: str) -> set[str]:
    """Those that a terminal acts on, or that hide or turn what stands beside them."""
    return {
        each for each in set(text)
        if each not in _SHOWN and (unicodedata.category(each) == "Cc" or each in _DIRECTIONS)
    }  # fmt: skip


def _around(text: str, raw: set[str]) -> str:
    where = min(text.index(each) for each in raw)
    return text[max(0, where - 60) : where + 30]


_PROGRESS = re.compile(r" *\d+\.\d s( |  .*)|interrupted.*|written: .*|what was measured is in .*")
_USAGE = re.compile(r"(Usage: .*|Try '.*|Error: .*|)")


def _lines(code: int | None, stderr: str) -> list[tuple[str, str]]:
    """What of stderr isn't a problem in one line: (what is wrong, the line)."""
    found: list[tuple[str, str]] = []
    lines = [line for line in stderr.split("\n") if not _PROGRESS.fullmatch(line)]
    if lines and not lines[-1]:
        lines.pop()
    is_usage = code == 2 and lines[:1] and lines[0].startswith("Usage: ")
    if is_usage and "Commands:" in lines:  # a group without a command
        return []
    for line in lines:
        if "Traceback (most recent call last)" in line:  # is a finding of its own
            return found
        if len(line) > LONGEST_LINE:
            found.append(("a long line", f"{len(line)} characters: {line[:200]}"))
        elif code == 0:
            found.append((f"said though all went well: {_without_numbers(line)[:40]}", line))
        elif is_usage:
            if not _USAGE.fullmatch(line):
                found.append(("a usage error on several lines", line[:200]))
        elif "; " not in line and code != 130:
            found.append((f"no problem and remedy: {_without_numbers(line)[:30]}", line[:300]))
    if len(stderr) > LONGEST_ERRORS:
        found.append(("too much is said", f"{len(stderr)} characters, {len(lines)} lines"))
    return found


# ---------------------------------------------------------------- words


_FRAME = re.compile(
    r'File "[^"]*?(discovery_xp/[^"]+|tests/fuzz/answers[^"]*)", line (\d+)(?:,)? in (\S+)'
)


def _last_own(trace: str) -> str | None:
    """The innermost frame of ours: file and function."""
    found = _FRAME.findall(trace)
    if not found:
        return None
    is_fatal = "most recent call first" in trace
    file, _line, function = found[0] if is_fatal else found[-1]
    return f"{file}:{function}"


def _signature(error: str) -> str:
    last = error.strip().splitlines()[-1]
    return f"{last.split(':')[0][:60]} in {_last_own(error) or '?'}"


def _tail(trace: str) -> str:
    return " / ".join(line.strip() for line in trace.splitlines()[:12])[:900]


def _without_numbers(words: str) -> str:
    return re.sub(r"\d+", "N", re.sub(r"/tmp/xp-fuzz-[^/]+/\d+", "ROOT", words))
