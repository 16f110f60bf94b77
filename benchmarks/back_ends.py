"""Back ends and layouts beside each other: what deploying, memory and a boot are on each.

Each arm of `back_end_rows.ARMS` is deployed on hosts of its own, two sites 50 ms apart with a
controller and six computes each, and asked for 100 VMs that one drawn placement puts on the same
computes in every arm.  `--repeat N` makes N blocks with a run of each arm, in an order that a seed
draws.  Nothing is asserted.

The file is written after each run, with the seed: the same command goes on with what has no row
yet, and an interrupted run is made again.  An arm that fails is a row with the reason, which
`--again failed` tries once more.  Run it as root on a machine that does nothing else.

    ./.venv/bin/python benchmarks/back_ends.py [--arms mysql,galera,...] [--repeat N]
        [--order-seed N] [--again failed|all] [--time-scale K] [--at-once N] [--vms N]
        [--computes N] [--verifications FOLDER ...] [--results FOLDER] [--json FILE]

`--verifications` adds what runs of `discovery-xp verify` say of a back end; with `--arms none` they
are all that is added.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import provenance
from back_end_rows import (
    ARMS,
    PLACEMENT_SEED,
    Row,
    Settings,
    disagreement,
    figures,
    in_words,
    pending,
    testbed_of,
    verification,
    with_row,
    with_verification,
)

from discovery_xp import arms
from discovery_xp.analysis.measurements import measured, read_runs, verifications
from discovery_xp.errors import UserError
from discovery_xp.inputs.scenario import MAX_SEED
from discovery_xp.store import find_runs, is_run_name
from discovery_xp.testbeds.testbed import Testbed, now

RESULT = provenance.RESULTS / "back-ends.json"
INTERRUPTED = 130


class Interrupted(Exception):
    """Somebody ended this process, or the command that was running."""


# ---------------------------------------------------------------- one run


def bench(name: str, block: int, settings: Settings, results: Path) -> Row:
    """Make a run of an arm and return its row; raises Interrupted."""
    arm, testbed = ARMS[name], testbed_of(name)
    row: Row = {
        "arm": name,
        "block": block,
        "backend": arm.backend,
        "layout": arm.layout,
        "data_hosts": arm.data_hosts,
        "at": now(),
    }
    if Testbed(testbed).exists():  # a run that was killed has left it
        discovery_xp("destroy", "--testbed", testbed)
    before = run_folders(results / testbed)
    started = time.monotonic()
    code, said = bench_command(name, settings, results)
    row |= {"exit_code": code, "wall_s": round(time.monotonic() - started, 1)}
    made = run_folders(results / testbed) - before
    if not made:
        return row | {"failure": said if code and said else f"exit code {code}, and no run"}
    try:
        (run,) = measured(find_runs([max(made)]))
        row |= figures(run)
    except Exception as error:  # the other arms can be measured all the same
        traceback.print_exc()
        return row | {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
    return row | {"failure": run.record.why_partial or (said if code else None)}


def bench_command(name: str, settings: Settings, results: Path) -> tuple[int, str]:
    """Run `discovery-xp bench` with an arm's files, and return what `discovery_xp` does."""
    with tempfile.TemporaryDirectory(prefix="back-ends-") as folder:
        topology, scenario = Path(folder, "topology.yaml"), Path(folder, "scenario.yaml")
        topology.write_text(ARMS[name].topology(testbed_of(name), settings))
        scenario.write_text(settings.scenario())
        return discovery_xp(
            "bench", str(topology), "--scenario", str(scenario),
            "--placement-seed", str(PLACEMENT_SEED),
            "--time-scale", f"{settings.time_scale:g}", "--results", str(results),
        )  # fmt: skip


def run_folders(experiment: Path) -> set[Path]:
    """Return the folders of an experiment's runs, whatever is in them."""
    found = experiment.iterdir() if experiment.is_dir() else ()
    return {path for path in found if is_run_name(path.name)}


def discovery_xp(*arguments: str) -> tuple[int, str]:
    """Run the command line and return its exit code, and the last line of its stderr.

    What asks this process to end interrupts the command, which destroys its testbed.  Raises
    Interrupted when that is done.
    """
    paths = [str(provenance.ROOT), str(provenance.ROOT / "rome/src")]
    process = subprocess.Popen(
        [sys.executable, "-m", "discovery_xp.cli", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C reaches it once, by way of us
    )  # fmt: skip
    with _passed_on(process) as signals:
        assert process.stderr is not None
        last: collections.deque[str] = collections.deque(maxlen=1)
        reader = threading.Thread(target=_echo, args=(process.stderr, last), daemon=True)
        reader.start()
        code = process.wait()
        # What outlives the command may hold its stderr open: there may never be an end of it.
        reader.join(timeout=5)
        if not reader.is_alive():
            process.stderr.close()
    if signals or code == INTERRUPTED:
        raise Interrupted
    return code, "".join(last)


@contextlib.contextmanager
def _passed_on(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Interrupt a command in the place of this process; yields the signals that came."""
    came: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        # In the background a shell has programs ignore SIGINT.
        process.send_signal(signal.SIGTERM)

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _echo(lines: IO[str], last: collections.deque[str]) -> None:
    """Print lines as they come, and keep the last one that says something."""
    for line in lines:
        sys.stderr.write(line)
        if line.strip():
            last.append(line.strip())


# ---------------------------------------------------------------- the file


class ResultFile:
    """The benchmark's file: what it has, and rows that are added to it one by one.

    Raises ValueError in words where new rows can't stand beside those that it has.
    """

    def __init__(
        self, path: Path, command: str, settings: Settings | None, order_seed: int | None
    ) -> None:
        """Read it; what is None is the file's own, or new where there is none."""
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.path, self.command = path, command
        self.settings: dict[str, Any] = (
            found.get("settings", dataclasses.asdict(Settings()))
            if settings is None
            else dataclasses.asdict(settings)
        )
        seed = found.get("order_seed") if order_seed is None else order_seed
        self.order_seed: int = arms.draw_seed() if seed is None else seed
        self.rows: list[Row] = found.get("rows", [])
        self.verifications: list[Row] = found.get("verifications", [])
        own = {**provenance.describe(command), **self._contents()}
        if (differs := disagreement(found, own)) is not None:
            raise ValueError(f"{path}: {differs}; name another --json")

    def add(self, row: Row) -> None:
        """Put a run's row in, and write the file."""
        self.rows = with_row(self.rows, row)
        self._write()

    def add_verification(self, row: Row) -> None:
        """Put a verification's row in, and write the file."""
        self.verifications = with_verification(self.verifications, row)
        self._write()

    def _write(self) -> None:
        provenance.write(self.path, self.command, self._contents())

    def _contents(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "order_seed": self.order_seed,
            "rows": self.rows,
            "verifications": self.verifications,
        }


# ---------------------------------------------------------------- the command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--arms", default="all", help=f"'none', or some of {','.join(ARMS)}")
    parser.add_argument("--repeat", type=_count, default=1, help="so many runs of each, in blocks")
    parser.add_argument("--order-seed", type=_seed, help="what draws the order (the file's)")
    parser.add_argument("--again", choices=["failed", "all"], help="runs that have a row already")
    parser.add_argument("--vms", type=_count, default=Settings.vms)
    parser.add_argument("--at-once", type=_count, help="so many VMs under way (all)")
    parser.add_argument("--computes", type=_count, default=Settings.computes, help="of each site")
    parser.add_argument("--time-scale", type=float, default=Settings.time_scale)
    parser.add_argument("--verifications", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--results", type=Path, default=provenance.ROOT / "results",
                        help="where the runs' folders go")  # fmt: skip
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 to {MAX_SEED}")
    return int(text)


def _names(text: str) -> list[str]:
    """Return the names of the arms in a list with commas; raises ValueError for an unknown one."""
    if text in ("all", "none"):
        return list(ARMS) if text == "all" else []
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in ARMS:
            raise ValueError(f"--arms: no arm '{name}'; write some of {', '.join(ARMS)}")
    return names


def _require_this_checkout() -> None:
    """Raise ValueError where runs would be read by another version than makes them."""
    package = Path(arms.__file__).resolve().parent
    if package.parent != provenance.ROOT:
        raise ValueError(
            f"{package}: not the package of this checkout; use its ./.venv/bin/python, or set "
            f"PYTHONPATH={provenance.ROOT}"
        )


def _opened(options: argparse.Namespace, command: str) -> ResultFile:
    """Return the file that rows go to; raises ValueError where they can't."""
    if options.arms == "none":
        return ResultFile(options.json, command, None, options.order_seed)
    settings = Settings(options.vms, options.at_once, options.computes, options.time_scale)
    if not settings.is_whole and options.json.resolve() == RESULT.resolve():
        raise ValueError(
            f"--vms {settings.vms} --computes {settings.computes}: documents show {Settings.vms} "
            f"VMs and {Settings.computes} computes; name another --json for a smaller bench"
        )
    return ResultFile(options.json, command, settings, options.order_seed)


def _command(options: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """Return the command in words, with what says what was measured; not where files are."""
    words = ["benchmarks/back_ends.py"]
    for name in ("arms", "repeat", "again", "vms", "at_once", "computes", "time_scale"):
        value = getattr(options, name)
        if value != parser.get_default(name):
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are asked for and have no row, and write their rows."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _require_this_checkout()
        names = _names(options.arms)
        file = _opened(options, _command(options, parser))
        for run in verifications(read_runs(options.verifications) if options.verifications else ()):
            file.add_verification(verification(run))
    except (ValueError, UserError) as error:
        parser.error(str(error).splitlines()[0])
    order = arms.order(names, file.order_seed, options.repeat)
    runs = pending(order, file.rows, options.again)
    listed = ", ".join(f"{name} ({block})" for block, name in runs)
    print(f"{len(runs)} of {len(order)} runs, by arm (block): {listed or 'none'}; "
          f"order seed {file.order_seed}", flush=True)  # fmt: skip
    try:
        for block, name in runs:
            row = bench(name, block, Settings(**file.settings), options.results.absolute())
            file.add(row)
            print(in_words(row), flush=True)
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
