"""Runs from strangers: whatever is in them gives a report, or one line that refuses them."""

import contextlib
import copy
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from rich.console import Console

from discovery_xp import store
from discovery_xp.analysis import drawing, export, pictures, plots, report, run_tables
from discovery_xp.analysis import tables as shown_tables
from discovery_xp.analysis.measurements import Measurements, read_runs
from discovery_xp.cli.main import cli
from discovery_xp.errors import Refused
from discovery_xp.store import Run, files, finding, links, pages, records, runs, tables, values
from tests.unit.synthetic_run import call, make_run

NASTY = "\x1b[31m$\\foo$\u202e<script>\r\n=cmd|' /C calc'!A0 {{ 7*7 }} {0.__class__} [bold]%s\x9b東"


HIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printed(measured: list[Measurements]) -> str:
    console = Console(width=300, highlight=False)
    with console.capture() as captured:
        report.print_report(console, measured, whole=False)
    return captured.get()


def everything(root: Path, output: Path) -> list[str]:
    """Make all that can be made of runs but figures; returns it as texts."""
    measured = read_runs([root])
    texts = [printed(measured), report.default_page(measured).name]
    written = export.write_csv(output, measured) + export.write_latex(output, measured)
    texts += [path.read_text() for path in written]
    texts += [f"{picture.caption}{picture.alt}" for picture in pictures.pictures_of(measured)]
    return texts


def refusal(root: Path) -> str:
    """Read a run wholly; returns the line that refuses it."""
    with pytest.raises(Refused) as caught:
        for measured in read_runs([root]):
            for table in store.TABLES:
                measured.run.table(table)
            measured.run.links()
    line = str(caught.value)
    assert caught.value.exit_code == 2
    assert line.isprintable()
    assert len(line) < 800
    assert str(root) in line
    assert "; " in line, "a remedy"
    return line


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "runs", sites=2, latency_ms=10)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose files may be replaced, if they are put back."""
    return make_run(tmp_path_factory.mktemp("hostile"), sites=2, latency_ms=10)


# ---------------------------------------------------------------- what isn't a file


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "name",
    ["run.json", "links.json", "vms.parquet", "report.html", "rally/x/results.json", "logs/x",
     "usage.parts/000001.parquet", "else"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("make", "kind"),
    [(_link, "a symbolic link"), (_fifo, "a pipe"), (Path.mkdir, "a folder")],
    ids=["link", "pipe", "folder"],
)
def test_only_files_are_read(run: Run, name: str, make: Callable[[Path], None], kind: str) -> None:
    path = run.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    if kind == "a folder" and name in ("report.html", "rally/x/results.json", "logs/x", "else"):
        return  # nobody reads them
    assert f"{name.rsplit('/')[-1]}: the run is damaged (it is {kind}, not a file); " in (
        refusal(run.folder)
    )


def test_links_in_the_place_of_runs_and_parts_are_refused(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "others"
    root.mkdir()
    link = root / run.folder.name
    link.symlink_to(run.folder)
    assert "a symbolic link in the place of a run; name the folder that it" in refusal(root)
    assert len(read_runs([link])) == 1, "whoever names a link means it"
    link.rename(root / "latest")
    (root / "loop").symlink_to(root)
    with pytest.raises(Refused, match="there is no run under it"):
        read_runs([root])
    parts = run.folder / "usage.parts"
    parts.symlink_to(tmp_path)
    assert "usage.parts: the run is damaged (it is a symbolic link" in refusal(run.folder)


def test_a_folder_without_an_end_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = run.folder / "logs"
    deep.joinpath(*["x"] * 20).mkdir(parents=True)
    assert "folders in folders without an end" in refusal(run.folder)
    shutil.rmtree(deep)
    monkeypatch.setattr(files, "MOST_FILES", 20)
    for number in range(20):
        (run.folder / f"{number}").touch()
    assert "there are more than 20 files in it" in refusal(run.folder)
    monkeypatch.setattr(finding, "_MOST_ENTRIES", 20)
    for number in range(21):
        (tmp_path / f"{number}").mkdir()
    assert "more than 20 files and folders to look through for runs; name a run's" in (
        refusal(tmp_path)
    )


def test_too_many_runs_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "runs", started="2026-11-23T17:00:00Z")
    monkeypatch.setattr(finding, "_MOST_RUNS", 1)
    with pytest.raises(Refused, match="more than 1 runs; name fewer"):
        read_runs([tmp_path])


@pytest.mark.parametrize("where", ["/", "/proc", "/dev", "/proc/self/mem", "/dev/zero", "x" * 5000])
def test_what_is_no_folder_of_runs_is_one_line(where: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", where])
    assert isinstance(done.exception, Refused), done.exception
    assert str(done.exception).isprintable()


def test_a_folder_that_cant_be_read_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def closed(path: Any) -> Any:  # to root no folder is closed
        if Path(path) == closed_folder:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    closed_folder = tmp_path / "runs"
    assert "it can't be looked through (Permission denied); name a run's" in refusal(tmp_path)
    closed_folder = run.folder
    assert "the run is damaged (it can't be read: Permission denied)" in refusal(run.folder)


def test_nothing_is_written_where_something_else_than_a_file_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "html", lambda *_: "page")
    target = tmp_path / "target"
    target.write_text("precious")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    for place in (link, pipe, tmp_path):
        done = CliRunner().invoke(cli, ["report", str(run.folder), "--html", str(place)])
        assert isinstance(done.exception, Refused), place
        assert "not a file); name another file" in str(done.exception)
    assert target.read_text() == "precious"
    assert link.is_symlink() and pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "runs", "target"]


def test_a_file_that_waits_under_a_temporary_name_is_not_written_through(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    monkeypatch.setattr("discovery_xp.store.files.secrets.token_hex", lambda _: "guessed")
    (run.folder / ".guessed").symlink_to(target)
    with pytest.raises(FileExistsError):
        run.write_text("report.html", "page")
    with pytest.raises(FileExistsError):
        run.write_table("messages", [])
    assert target.read_text() == "precious"


# ---------------------------------------------------------------- what isn't JSON of a run

TEXTS: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "text": b'"x"',
    "cut": b'{"format": 1, "exp',
    "deep list": b"[" * 100_000,
    "deep mapping": b'{"before":' * 100_000,
    "closed": b"[" * 100_000 + b"]" * 100_000,
    "zero bytes": b"\0" * 1000,
    "no UTF-8": b'{"before": "\xff"}',
    "half a character": b'{"before": "\\ud800"}',
    "byte order": b'\xff\xfe{\0"\0',
    "an integer": b'{"format": ' + b"9" * 10_000 + b"}",
    "escapes": json.dumps({"before": NASTY}).encode(),
    "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
}


@pytest.mark.parametrize("name", ["run.json", "links.json"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_text_that_is_no_record_is_refused(run: Run, name: str, text: bytes) -> None:
    (run.folder / name).write_bytes(text)
    line = refusal(run.folder)
    assert f"{name}: " in line


@pytest.mark.parametrize(
    ("name", "size"),
    [("run.json", records.MOST_RECORD_BYTES), ("links.json", links.MOST_LINKS_BYTES),
     ("usage.parquet", tables.MOST_BYTES)],
)  # fmt: skip
def test_a_file_of_any_size_is_not_read(run: Run, name: str, size: int) -> None:
    with (run.folder / name).open("wb") as file:
        file.truncate(size + 1)
    assert "MiB, more than " in refusal(run.folder)


CHANGES: list[tuple[str, Any, str]] = [
    ("experiment", "../../etc", "'experiment': "),
    ("experiment", "a/b", ", not \"a/b\""),
    ("experiment", "-rf", "'experiment': "),
    ("experiment", "x\n", r'not "x\n"'),
    ("experiment", NASTY, "'experiment': "),
    ("plan", "x/../y", "'plan': "),
    ("backend", "$\\foo$", "'backend': "),
    ("started", "yesterday", "'started': "),
    ("started", "2026-13-45T99:99:99Z", "does not match format"),
    ("ended", "2026-11-23T16:10:00Z\n", "'ended': "),
    ("sites", -1, "'sites': Input should be greater than or equal to 0, not -1"),
    ("sites", 2**70, "'sites': "),
    ("sites", True, "'sites': "),
    ("computes", 1.5, "'computes': "),
    ("latency_ms", 1e300, "'latency_ms': "),
    ("duration_s", 10**400, "'duration_s': "),
    ("vms", {"asked": 1, "active": -1, "failed": 0, "deleted": 0}, "'vms.active': "),
    ("probes", ["usage"] * 100, "'probes': "),
    ("notes", ["x"] * 5000, "'notes': "),
    ("notes", ["x" * 5000], "'notes.0': "),
    ("versions", {str(number): "1" for number in range(5000)}, "'versions': "),
    ("versions", {"nova": 34}, "'versions.nova': "),
    ("stages_s", {"load": "long"}, "'stages_s.load': "),
    ("options", [], "'options': "),
    ("options", {"placement": ["zones"]}, "'placement': "),
    ("options", {"nodes": "4"}, "'nodes': "),
    ("options", {"nodes": -4}, "'nodes': "),
    ("options", {"replicas": None}, "'replicas': "),
    ("options", {"databases": ["nova"]}, "'databases': "),
    ("options", {"databases": {"nova": 1}}, "'databases.nova': "),
    ("options", {"rome": "server"}, "'rome': "),
    ("options", {"rome": {"persistence": {}}}, "'rome.persistence': "),
    ("options", {"config": {"x": 10**30}}, "a number beyond 10^18"),
    ("options", {"config": {"x": -(10**400)}}, "a number beyond 10^18"),
    ("options", {"config": {"x": float("nan")}}, "a number beyond 10^18"),
    ("scenario", {"vms": float("inf")}, "a number beyond 10^18"),
    ("options", {"config": ["x"] * 20_000}, "more than 20000 values"),
    ("scenario", {"kind": ["reads"]}, "'kind': "),
    ("scenario", {"kind": "reads", "iterations": "many"}, "'iterations': "),
    ("scenario", {"description": "x" * 100_001}, "a text of 100001 characters"),
    ("format", 4, "a run of format 4, but this version reads 1, 2 and 3; use the version that"),
    ("format", [[[NASTY]]], "a run of format a list, but"),
    ("format", "9" * 5000, "... ("),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), CHANGES, ids=lambda value: str(value)[:20])
def test_a_value_that_no_run_has_is_refused(run: Run, key: str, value: Any, said: str) -> None:
    path = run.folder / "run.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, key: value}))
    assert said in refusal(run.folder)


def test_values_in_each_other_have_an_end(run: Run) -> None:
    path = run.folder / "run.json"
    data = json.loads(path.read_text())
    nested: Any = "x"
    for _ in range(150):
        nested = [nested]
    path.write_text(json.dumps({**data, "options": {"config": nested}}))
    assert "'options': " in refusal(run.folder)


PAIR = {"source": "site1", "target": "site2", "requested_ms": 20.0, "observed_ms": 20.5,
        "samples": 20, "lost": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([], "Input should be an object"),
        ({"before": 3}, "'before': "),
        ({"before": ["site1"]}, "'before.0': "),
        ({"before": [{**PAIR, "observed_ms": "20"}]}, "'before.0.observed_ms': "),
        ({"before": [], "after": [PAIR, {**PAIR, "requested_ms": None}]}, "'after.1.requested_ms'"),
        ({"before": [{**PAIR, "requested_ms": 1e99}]}, "'before.0.requested_ms': "),
        ({"before": [{**PAIR, "samples": -1}]}, "'before.0.samples': "),
        ({"before": [{"source": "site1"}]}, "'before.0.target': Field required"),
        ({"before": [{**PAIR, "source": ["x"]}]}, "'before.0.source': "),
    ],
)
def test_pairs_are_read_strictly(run: Run, links: Any, said: str) -> None:
    run.write_text("links.json", json.dumps(links))
    line = refusal(run.folder)
    assert "links.json: the run is damaged (" in line
    assert said in line


def test_pairs_may_say_more_and_lack_what_was_not_seen(run: Run) -> None:
    run.write_json("links.json", {"before": [{**PAIR, "observed_ms": None, "jitter_ms": 1}]})
    (measured,) = read_runs([run.folder])
    assert measured.round_trips["observed_ms"].isna().tolist() == [True]
    assert "unreachable" in printed([measured])


# ---------------------------------------------------------------- what isn't a table


def _usage(run: Run, **columns: Any) -> pa.Table:
    rows = run.table("usage")
    made = {name: columns.get(name, rows[name]) for name in rows.column_names}
    return pa.table({name: pa.array(each) if isinstance(each, list) else each
                     for name, each in made.items()})  # fmt: skip


def _invalid_utf8() -> pa.Array:
    return pa.array([b"\xff\xfe"] * 3).view(pa.binary()).cast(pa.string(), safe=False)


CELLS: list[tuple[str, Any, str]] = [
    ("cpu_s", [float("nan"), 1.0, 2.0], "holds what is not a number"),
    ("cpu_s", [float("inf"), 1.0, 2.0], "holds inf, which can't"),
    ("cpu_s", [-1e300, 1.0, 2.0], "holds -1e+300, which can't"),
    ("cpu_s", ["1", "x", "2"], "table 'usage': "),
    ("cpu_s", [None, 1.0, 2.0], "column 'cpu_s' has nulls"),
    ("memory_bytes", [2**60, 1, 2], "which can't have been measured"),
    ("memory_bytes", [-(2**62), 1, 2], "which can't have been measured"),
    ("service", ["x" * 10_001, "y", "z"], "a text of 10001 characters"),
    ("service", ["x" * 50_001, "y", "z"], "too long a text"),
    ("service", [["x"], ["y"], ["z"]], "it lacks, or has too many: "),
    ("service", [{"a": 1}, {"a": 2}, {"a": 3}], "it lacks, or has too many: "),
    ("service", [1, 2, 3], "column 'service' holds INT64, not BYTE_ARRAY"),
    ("memory_bytes", [1.5, 2.0, 3.0], "column 'memory_bytes' holds DOUBLE, not INT64"),
    ("service", [b"\xff", b"\xfe", b"\xfd"], "UTF"),
    ("site", [None, None, "x"], "column 'site' has nulls"),
    ("site", [None, None, None], "column 'site' holds INT32, not BYTE_ARRAY"),
]


@pytest.mark.parametrize(("column", "cells", "said"), CELLS, ids=lambda value: str(value)[:20])
def test_a_cell_that_no_table_has_is_refused(
    run: Run, column: str, cells: list[Any], said: str
) -> None:
    pq.write_table(_usage(run, **{column: cells}), run.folder / "usage.parquet")
    line = refusal(run.folder)
    assert "usage.parquet: the run is damaged (" in line
    assert said in line


def test_what_is_no_table_is_refused(run: Run) -> None:
    path = run.folder / "usage.parquet"
    whole = path.read_bytes()
    for damage in (
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"PARE" + whole[4:-4] + b"PARE",
        whole[:-1],
        whole[1:],
        b"ARROW1\0\0" + whole,
        b"\x80\x04." * 100,
        whole[:50] + b"\xff" * 50 + whole[100:],
        whole[:-8] + b"\xff\xff\xff\x7fPAR1",
    ):
        path.write_bytes(damage)
        refusal(run.folder)


def test_a_place_for_each_of_a_thousand_sites_and_no_more(run: Run) -> None:
    def rows(count: int) -> list[dict[str, Any]]:
        return [call(1.0, 2.0, site=f"site{number}") for number in range(count)]

    run.write_table("calls", rows(1000))
    with pytest.raises(ValueError, match="column 'site' holds 1001 different values"):
        run.write_table("calls", rows(1001))
    run.append("calls", [call(1.0, 2.0, site="one more")])  # each file is well
    assert "column 'site' holds 1001 different values, more than 1000" in refusal(run.folder)


def test_a_table_of_billions_of_equal_rows_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 50)
    rows = pa.concat_tables([run.table("usage")] * 17)
    pq.write_table(rows, run.folder / "usage.parquet")
    assert "rows, more than 50)" in refusal(run.folder)
    pq.write_table(rows.slice(0, 50), run.folder / "usage.parquet")
    assert run.table("usage").num_rows == 50
    run.append("usage", run.table("usage").slice(0, 1))
    assert "rows, more than 50)" in refusal(run.folder)


def test_columns_in_columns_have_an_end(run: Run) -> None:
    def element(name: str, children: int) -> bytes:  # of Thrift's compact protocol
        label = bytes([0x18, len(name)]) + name.encode()  # field 4
        if children:  # field 3: required; field 5: how many
            return b"\x35\x00" + label + b"\x15" + _varint(2 * children) + b"\x00"
        return b"\x15\x0c" + b"\x25\x00" + label + b"\x00"  # field 1: BYTE_ARRAY

    depth = 50_000
    elements = [element("x", 1)] * depth + [element("y", 0)]
    schema = b"\xfc" + _varint(len(elements)) + b"".join(elements)
    footer = b"\x15\x02" + b"\x19" + schema + b"\x16\x00" + b"\x19\x0c" + b"\x00"
    (run.folder / "usage.parquet").write_bytes(
        b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    )
    done = subprocess.run(
        [sys.executable, "-m", "discovery_xp.cli", "report", str(run.folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "usage.parquet: the run is damaged (" in done.stderr


def _varint(number: int) -> bytes:
    made = b""
    while number > 0x7F:
        made += bytes([number & 0x7F | 0x80])
        number >>= 7
    return made + bytes([number])


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run.folder / "usage.parquet"
    monkeypatch.setattr(pages, "MOST_BYTES", 2**20)
    usual = _usage(run)
    pq.write_table(_usage(run, service=["x" * 2**21, "y", "z"]), path, compression="zstd")
    assert path.stat().st_size < 2**15
    assert "it unpacks to more than 1 MiB" in refusal(run.folder)
    # A text from the one before it: some bytes in the page, any number of them outside.
    pq.write_table(usual, path, use_dictionary=False,
                   column_encoding={"service": "DELTA_BYTE_ARRAY"})  # fmt: skip
    assert "an encoding that runs aren't written with" in refusal(run.folder)


def test_a_long_text_is_not_repeated_before_its_size_is_known(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_TEXT", 10**6)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300), pa.array(["x" * 9000]))
    rows = pa.table({name: text if name == "service" else pa.concat_arrays(
        [run.table("usage")[name].combine_chunks()] * 100) for name in
        (column.name for column in store.TABLES["usage"])})  # fmt: skip
    pq.write_table(rows, run.folder / "usage.parquet")
    assert (run.folder / "usage.parquet").stat().st_size < 20_000
    assert "column 'service' holds more than 1000000 bytes" in refusal(run.folder)


def _pages_of(path: Path) -> tuple[bytes, list[pages.Chunk]]:
    data = path.read_bytes()
    return data, list(tables._chunks(pq.ParquetFile(path).metadata))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_sizes_of_pages_are_those_that_a_reader_finds(
    run: Run, tmp_path: Path, version: str
) -> None:
    path = tmp_path / "pages.parquet"
    rows = pa.concat_tables([run.table("calls")] * 500)
    pq.write_table(rows, path, compression="zstd", data_page_version=version, data_page_size=500,
                   row_group_size=1000, write_statistics=True)  # fmt: skip
    data, chunks = _pages_of(path)
    found = 0
    for chunk in chunks:
        position = chunk.start
        while position < chunk.start + chunk.length:
            header = pages._Header(data, position, len(data))
            # What the footer counts has the headers in it.
            found += header.unpacked + header.end - position
            position = header.end + header.packed
        assert position == chunk.start + chunk.length
    metadata = pq.ParquetFile(path).metadata
    claimed = sum(
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    assert found == claimed
    assert len(chunks) > 20
    pages.require_bounded(data, chunks)


@given(st.integers(0, 2**30), st.binary(max_size=40))
@settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_any_bytes_in_the_place_of_pages_are_refused_or_bounded(
    one_run: Run, place: int, noise: bytes
) -> None:
    data, chunks = _pages_of(one_run.folder / "calls.parquet")
    place %= len(data)
    try:
        pages.require_bounded(data[:place] + noise + data[place + len(noise) :], chunks)
    except pages.PagesError as error:
        assert str(error)


def test_a_size_that_is_said_twice_is_refused() -> None:
    # Field 2 (unpacked) is 2**31 - 1 for whoever takes the first, 1 for who takes the last.
    header = bytes([0x15, 0, 0x15]) + b"\xfe\xff\xff\xff\x0f" + bytes([0x05, 4, 2, 0x15, 2, 0])
    with pytest.raises(pages.PagesError, match="twice"):
        pages.require_bounded(header, [pages.Chunk(0, len(header), 1)])


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_a_table_with_any_bytes_changed_is_read_or_refused(one_run: Run, data: Any) -> None:
    path = one_run.folder / "usage.parquet"
    whole = path.read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        # The footer, which holds offsets, sizes and types, is the last half.
        place = data.draw(st.integers(-len(whole), -1))
        changed[place] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    try:
        one_run.table("usage")
    except Refused as error:
        assert str(error).isprintable()
    finally:
        path.write_bytes(whole)


def test_nothing_is_unpickled(run: Run, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    pickled = f"cos\nsystem\n(S'touch {proof}'\ntR.".encode()
    rows = run.table("usage")
    for name in (b"arrow.py_extension_type", b"arrow.opaque", b"unknown"):
        notes = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": pickled}
        fields = [field.with_metadata(notes) if field.name == "service" else field
                  for field in rows.schema]  # fmt: skip
        pandas = json.dumps({"index_columns": [{"kind": "range", "__reduce__": pickled.decode()}],
                             "columns": [{"name": "service", "pandas_type": "object",
                                          "numpy_type": "object", "metadata": {"pickle": 1}}],
                             "column_indexes": [], "pandas_version": "9"})  # fmt: skip
        schema = pa.schema(fields, {b"pandas": pandas.encode(), b"discovery_xp.parts": b"0"})
        pq.write_table(rows.cast(schema), run.folder / "usage.parquet")
        try:
            assert run.table("usage").equals(rows)
        except Refused as error:
            assert "usage.parquet: the run is damaged (" in str(error)
    assert not proof.exists()


@pytest.mark.parametrize("note", [b"x", b"-1", b"9" * 5000, "٣".encode(), b"1_0", b""])
def test_the_number_of_parts_is_a_number(run: Run, note: bytes) -> None:
    rows = run.table("usage").replace_schema_metadata({b"discovery_xp.parts": note})
    pq.write_table(rows, run.folder / "usage.parquet")
    if note:
        assert "it doesn't say which of its parts it holds" in refusal(run.folder)
    else:
        assert run.table("usage").num_rows == 3


def test_parts_have_the_names_that_append_gives(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = run.folder / "usage.parts"
    parts.mkdir()
    for name in ("1a", "1²", "٣", "1", "0000001", "-00001", "9" * 200):
        (parts / f"{name}.parquet").write_bytes(b"nonsense")
    assert run.table("usage").num_rows == 3
    monkeypatch.setattr(runs, "_MOST_PARTS", 3)
    for number in range(1, 5):
        shutil.copy(run.folder / "usage.parquet", parts / f"{number:06d}.parquet")
    assert "more than 3 parts of a table" in refusal(run.folder)


# ---------------------------------------------------------------- any JSON, anywhere

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
    | st.sampled_from([NASTY, 10**400, -(2**63), 1e308, "x" * 20_000, "", "reads", "ACTIVE"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, (*place, key))
    elif isinstance(value, list):
        for index, each in enumerate(value[:2]):
            yield from _places(each, (*place, index))


def _with(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    made = copy.copy(value)
    made[place[0]] = _with(value[place[0]], place[1:], new)
    return made


@contextlib.contextmanager
def _changed(path: Path, data: Any) -> Iterator[None]:
    """A JSON file with any value in any place, for a while."""
    before = path.read_text()
    whole = json.loads(before)
    place = data.draw(st.sampled_from(list(_places(whole))))
    path.write_text(json.dumps(_with(whole, place, data.draw(JSON))))
    try:
        yield
    except Refused as error:
        assert str(error).isprintable()
        assert path.name in str(error)
    finally:
        path.write_text(before)


ANY = settings(max_examples=60, deadline=None, derandomize=True,
               suppress_health_check=list(HealthCheck))  # fmt: skip


@given(data=st.data())
@ANY
def test_any_value_in_any_place_of_a_record_gives_a_report_or_one_refusal(
    one_run: Run, data: Any
) -> None:
    output = one_run.folder.parent / ".output"
    with _changed(one_run.folder / "run.json", data):
        for text in everything(one_run.folder, output):
            assert not HIDDEN.search(text)
    shutil.rmtree(output, ignore_errors=True)


@given(data=st.data())
@ANY
def test_any_value_in_any_place_of_links_gives_a_table_or_one_refusal(
    one_run: Run, data: Any
) -> None:
    with _changed(one_run.folder / "links.json", data):
        (measured,) = read_runs([one_run.folder])
        table = shown_tables.Table("links", "links", run_tables._round_trip_table(measured))
        assert not HIDDEN.search(str(table.cells()))


TEXT = st.sampled_from([NASTY, "", " ", "-", "=1+1", "_", "site1", "$", "$$", "\\$x$", "9" * 5000])
NUMBER = st.sampled_from([0.0, -1.0, 1e-300, 1.0, 1e9, 2.0**53, -(2.0**53)])
COUNT = st.sampled_from([0, -1, 1, 10**9, 2**53, -(2**53)])


@st.composite
def _rows(draw: st.DrawFn, table: str) -> list[dict[str, Any]]:
    def cell(column: store.Column) -> Any:
        kinds: dict[str, st.SearchStrategy[Any]] = {
            "string": st.sampled_from(column.values) if column.values else TEXT,
            "float64": NUMBER, "int64": COUNT, "bool": st.booleans(),
        }  # fmt: skip
        kind = kinds[column.type]
        return draw(st.none() | kind if column.null else kind)

    return [
        {column.name: cell(column) for column in store.TABLES[table]}
        for _ in range(draw(st.integers(0, 4)))
    ]


@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_rows_that_fit_their_tables_give_a_report(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    root = tmp_path_factory.mktemp("rows")
    run = make_run(root, sites=data.draw(st.integers(1, 3)), latency_ms=10,
                   failed=data.draw(st.sampled_from([2, 20])))  # fmt: skip
    for table in store.TABLES:
        run.write_table(table, data.draw(_rows(table)))
    everything(root, root / "output")
    for picture in pictures.pictures_of(read_runs([root])):
        picture.draw(plots.LIGHT).draw_without_rendering()
    shutil.rmtree(root)


# ---------------------------------------------------------------- what is shown


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs whose every free text is nasty."""
    root = tmp_path_factory.mktemp("nasty")
    for number in range(2):
        run = make_run(
            root, sites=2, latency_ms=10, started=f"2026-11-23T16:00:0{number}Z",
            status="partial", reason=NASTY,
        )  # fmt: skip
        for table, columns in store.TABLES.items():
            rows = run.table(table).to_pylist()
            for row in rows:
                for column in columns:
                    if column.type == "string" and not column.values and row[column.name]:
                        row[column.name] = f"{NASTY}{row[column.name]}"
            run.write_table(table, rows)
        links = json.loads((run.folder / "links.json").read_text())
        links["before"][0]["source"] = NASTY
        run.write_json("links.json", links)
        record = run.load()
        run.update(
            notes=(NASTY,), commit=NASTY, versions={"nova": NASTY}, stages_s={NASTY: 2.0},
            options={**record.options, "placement": "shared", "config": {NASTY: NASTY}},
            scenario={"description": NASTY}, machine=store.Machine(2, NASTY, 1, NASTY, NASTY),
            load=store.Load(1.0, 1.0, 1, NASTY),
        )  # fmt: skip
    return root


def test_terminals_show_hidden_characters_as_text(nasty: Path) -> None:
    for paths in ([nasty], [min((nasty / "synthetic").iterdir())]):
        shown = printed(read_runs(paths))
        assert not HIDDEN.search(shown)
        assert r"\x1b[31m$\foo$\u202e<script>\r\n=cmd" in re.sub(r"\s*\n\s*", "", shown)


def test_pages_show_hidden_characters_and_markup_as_text(
    nasty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for paths in ([min((nasty / "synthetic").iterdir())], [nasty]):
        page = report.html(read_runs(paths))
        assert not HIDDEN.search(page)
        assert "<script" not in page
        assert r"\x1b[31m$\foo$\u202e&lt;script&gt;\r\n=cmd" in page
        assert "{{ 7*7 }}" in page
        assert len(set(re.findall(r'<figcaption id="([a-z0-9-]+)">', page))) > 3
        monkeypatch.setattr(report, "pictures_of", lambda _: [])  # once is enough
        assert set(re.findall(r"<(\w+)", page)) <= {
            "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p",
            "strong", "div", "ul", "li", "main", "dl", "dt", "dd", "figure", "picture", "source",
            "img", "figcaption", "b", "span", "table", "thead", "tbody", "tr", "th", "td", "pre",
            "code",
        }  # fmt: skip


def test_notebooks_show_hidden_characters_and_markup_as_text(nasty: Path) -> None:
    (measured,) = read_runs([min((nasty / "synthetic").iterdir())])
    for table in run_tables.run_tables(measured):
        assert not HIDDEN.search(table._repr_html_())
        assert "<script" not in table._repr_html_()


def test_exported_tables_hold_no_formulas_and_no_hidden_characters(
    nasty: Path, tmp_path: Path
) -> None:
    measured = read_runs([nasty])
    for path in export.write_csv(tmp_path, measured):
        text = path.read_text()
        assert not HIDDEN.search(text)
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                number = re.fullmatch(r"-?[0-9.]+(e[+-][0-9]+)?|-?inf", cell)
                assert number or not cell.lstrip().startswith(("=", "+", "-", "@")), cell
    for path in export.write_latex(tmp_path, measured):
        text = path.read_text()
        assert not HIDDEN.search(text)
        assert not re.search(r"\\foo\b", text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "=cmd|'x'!A0"])
def test_a_formula_is_marked_as_text(text: str) -> None:
    made = export._csv(pd.DataFrame({"error": [text, None], "n": [-1.0, 2.0]}))
    first, second = list(csv.reader(io.StringIO(made)))[1:]
    assert first[0].startswith("'") or first[0].startswith("\\t")
    assert first[1] == "-1.0"
    assert second[0] == ""


def _texts(figure: Any) -> list[Text]:
    figure.canvas.draw()  # ticks have their text only then
    return [each for each in figure.findobj(Text) if each.get_text()]


def test_figures_draw_names_as_text(nasty: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for paths in ([nasty], [min((nasty / "synthetic").iterdir())]):
            drawn = ""
            for picture in pictures.pictures_of(read_runs(paths)):
                figure = picture.draw(plots.LIGHT)
                for text in _texts(figure):
                    _, is_math = text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
                    assert is_math is False
                    assert not HIDDEN.search(text.get_text())
                    drawn += text.get_text()
                assert b"<script" not in drawing.image(figure, "svg")
        assert r"\x1b[31m\$\foo\$\u202e<script>" in drawn


@pytest.mark.parametrize(
    ("text", "shown"),
    [("site1", "site1"), ("$x$", r"\$x\$"), ("_x", "\u200b_x"), ("a\nb", r"a\nb"),
     ("東", r"\u6771"), ("x" * 50, "x" * 40 + "... (50 characters)")],
)  # fmt: skip
def test_a_name_at_an_axis(text: str, shown: str) -> None:
    assert drawing.plain(text) == shown


def test_text_is_never_given_to_tex(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """matplotlib takes its settings from the working directory, which may be a stranger's."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\ntext.latex.preamble: \\foo\n")
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys; from pathlib import Path; from discovery_xp.analysis import drawing, plots, "
         "measurements; run, = measurements.read_runs([Path(sys.argv[1])]); "
         "print(drawing.image(plots.cpu_shares([run]), 'svg'))", str(run.folder)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "svg" in done.stdout


def test_a_figure_of_a_thousand_sites_can_be_drawn(run: Run, tmp_path: Path) -> None:
    row = run.table("vms").to_pylist()[0]
    run.write_table("vms", [{**row, "host_site": f"site{number}"} for number in range(1000)])
    use = run.table("usage").to_pylist()[0]
    run.write_table("usage", [{**use, "service": f"service{number}"} for number in range(1000)])
    (measured,) = read_runs([run.folder])
    assert "CPU, ms per VM (64 of 1000 services)" in {
        each.get_text() for each in _texts(plots.cpu_by_service(measured))
    }
    figure = plots.vms_by_site(measured)
    assert "site of the host (64 of 1000 sites)" in {each.get_text() for each in _texts(figure)}


def test_a_figure_of_a_hundred_latencies_can_be_drawn(tmp_path: Path) -> None:
    for number in range(14):
        make_run(tmp_path / "runs", sites=2, latency_ms=number + 1.0, probes=("calls",),
                 started=f"2026-11-23T16:00:{number:02d}Z")  # fmt: skip
    measured = read_runs([tmp_path / "runs"])
    for picture in pictures.pictures_of(measured):
        assert picture.draw(plots.LIGHT).get_size_inches()[1] < 50
    assert "2 more aren't drawn" in "".join(
        text.get_text() for text in _texts(plots.response_times(measured))
    )


# ---------------------------------------------------------------- names of files


def test_files_are_called_by_names_that_a_bench_gives(tmp_path: Path) -> None:
    good = make_run(tmp_path / "a")
    same = make_run(tmp_path / "b")
    odd = make_run(tmp_path / "c")
    moved = odd.folder.rename(odd.folder.with_name("--x\n;rm -rf"))
    measured = read_runs([tmp_path])
    assert sorted(export.file_names(measured)) == ["run-1", "run-2", "run-3"]
    names_of_two = export.file_names(read_runs([good.folder, moved]))
    assert sorted(names_of_two)[0] == good.folder.name
    assert re.fullmatch("run-[12]", sorted(names_of_two)[1])
    names = {path.name for path in export.write_csv(tmp_path / "csv", measured)}
    assert {f"run-{number}.usage.csv" for number in (1, 2, 3)} <= names
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert same.folder.is_dir()


# ---------------------------------------------------------------- what is written


def test_what_hosts_say_is_cut_to_what_can_be_read_again(run: Run) -> None:
    run.update(
        notes=("\udcff" * 10**5,) * 10_000,
        reason="é" * 10**6,
        status="partial",
        versions={f"{'v' * 500}{number}": NASTY * 100 for number in range(1000)},
        machine=store.Machine(2, "c" * 10**6, 1, "\ud800" * 10**6, "local"),
    )
    assert (run.folder / "run.json").stat().st_size < runs._ROOM_BYTES
    record = run.load()
    assert len(record.notes) == 60
    assert record.notes[-1] == "and 9941 more"
    run.append("messages", [{"queue": "\ud800" * 10**5, "published": 1, "delivered": 1,
                             "acknowledged": 1}])  # fmt: skip
    assert run.table("messages")["queue"].to_pylist()[-1] == "?" * tables.MOST_CHARACTERS


def test_results_are_writable_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run = make_run(tmp_path / "new" / "results")
        run.append("messages", run.table("messages"))
        run.write_text("rally/host/results.json", "{}")
    finally:
        os.umask(before)
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        assert path.stat().st_mode & 0o022 == 0, path


def test_the_docs_tell_the_limits() -> None:
    text = (Path(__file__).parents[2] / "docs/results.md").read_text()
    section = text.split("### Limits")[1].split("\n## ")[0]
    for limit in (
        f"{files.MOST_FILES:,} in a run",
        f"{records.MOST_RECORD_BYTES >> 20} MiB, {links.MOST_LINKS_BYTES >> 20} MiB; UTF-8",
        f"{values.MOST_VALUES:,} values, {values.MOST_NESTED} in each other, texts of "
        f"{values.MOST_TEXT:,} characters",
        f"{tables.MOST_ROWS:,} rows, `calls`, `requests`, `spans` and `series` "
        f"{tables.MOST_ROWS_OF['calls']:,}; "
        f"{runs._MOST_PARTS} parts; a file "
        f"{tables.MOST_BYTES >> 20} MiB, unpacked {pages.MOST_BYTES >> 20} MiB",
        f"{tables.MOST_CHARACTERS:,} characters",
        f"{records._WRITTEN_NOTES} notes of {records._WRITTEN_LINE} characters",
    ):
        assert limit in section, limit
    assert set(tables._MOST.values()) == {1000, 5000}
    text = (Path(__file__).parents[2] / "docs/analysis.md").read_text()
    assert f"{finding._MOST_ENTRIES:,} entries and {finding._MOST_RUNS} runs" in text
