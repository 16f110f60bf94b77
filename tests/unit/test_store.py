import dataclasses
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from discovery_xp import store
from discovery_xp.errors import Refused
from discovery_xp.store import (
    RunRecord,
    Taken,
    new_run,
    open_run,
    record_from_json,
    runs_under,
)
from tests.unit.synthetic_run import call, make_run

DOCS = (Path(__file__).parents[2] / "docs/results.md").read_text()
MESSAGES = {"queue": "conductor", "published": 3, "delivered": 2, "acknowledged": 1}


def record_json(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return data


def rewrite(folder: Path, **changes: Any) -> None:
    (folder / "run.json").write_text(json.dumps({**record_json(folder), **changes}))


# ---------------------------------------------------------------- where runs are


def test_a_runs_folder_says_when_and_what(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, experiment="two-sites", started="2026-11-23T16:05:01Z", plan="1f2e3d4c5b6a"
    )
    assert run.folder == tmp_path / "two-sites/20261123T160501Z-1f2e3d4c5b6a"
    assert run.folder.is_dir()
    assert run.name == "two-sites/20261123T160501Z-1f2e3d4c5b6a"


def test_two_runs_of_a_plan_in_a_second_are_refused(tmp_path: Path) -> None:
    record = make_run(tmp_path, experiment="a", started="2026-11-23T16:05:01Z").load()
    with pytest.raises(Taken, match="within the same second; start it again"):
        new_run(tmp_path, record)
    new_run(tmp_path, dataclasses.replace(record, started="2026-11-23T16:05:02Z"))
    assert len(list((tmp_path / "a").iterdir())) == 2, "nothing else is left"


def test_a_run_is_never_seen_without_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_run(tmp_path / "elsewhere").load()
    seen: list[list[store.Run]] = []
    save = store.Run.save

    def look_meanwhile(run: store.Run, record: RunRecord) -> RunRecord:
        seen.append(runs_under(tmp_path / "results"))
        return save(run, record)

    monkeypatch.setattr(store.Run, "save", look_meanwhile)
    run = new_run(tmp_path / "results", record)
    assert seen == [[]]
    assert runs_under(tmp_path / "results") == [run]


def test_a_folder_that_cant_be_made_is_refused(tmp_path: Path) -> None:
    record = make_run(tmp_path / "elsewhere").load()
    (tmp_path / "results").write_text("a file")
    with pytest.raises(Refused, match=r"can't be made .*; name another folder"):
        new_run(tmp_path / "results", record)


def test_whether_results_can_be_stored_is_known_before(tmp_path: Path) -> None:
    store.require_writable(tmp_path / "not" / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"file/x: can't be written to \(.*/file is no folder"):
        store.require_writable(tmp_path / "file/x")


def test_the_last_word_has_room_on_a_full_disk(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = {path.name for path in run.folder.iterdir()}
    run.keep_room()
    [room] = [path for path in run.folder.iterdir() if path.name not in before]
    assert room.stat().st_blocks * 512 > 4 * len((run.folder / "run.json").read_bytes())
    run.free_room()
    run.free_room()
    assert {path.name for path in run.folder.iterdir()} == before


def test_runs_are_found_wherever_they_lie_the_oldest_first(tmp_path: Path) -> None:
    late = make_run(tmp_path / "results", started="2026-11-23T17:00:00Z")
    early = make_run(tmp_path / "results", experiment="other", started="2026-11-23T16:00:00Z")
    make_run(tmp_path / "results/.hidden")
    (tmp_path / "results/README.md").write_text("not a run")
    for root in (tmp_path, tmp_path / "results"):
        assert [run.name for run in runs_under(root)] == [early.name, late.name]
    assert [run.name for run in runs_under(late.folder)] == [late.name]
    assert [run.name for run in runs_under(late.folder.parent)] == [late.name]
    assert runs_under(tmp_path / "results/.hidden/synthetic/..") != []


def test_no_runs_and_no_folder_are_two_things(tmp_path: Path) -> None:
    assert runs_under(tmp_path) == []
    with pytest.raises(Refused, match="nowhere: no such folder"):
        runs_under(tmp_path / "nowhere")
    with pytest.raises(Refused, match="no such folder"):
        open_run(tmp_path / "nowhere")


def test_files_lie_where_the_contract_has_them(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.write_json("plan.json", {"name": "t"})
    run.write_text("topology.yaml", "sites:\n- name: é\n  count: 2\n")
    run.write_text("rally/report.json", "{}")
    assert run.read_json("plan.json") == {"name": "t"}
    text = (run.folder / "topology.yaml").read_text()
    assert yaml.safe_load(text) == {"sites": [{"name": "é", "count": 2}]}
    assert (run.folder / "rally/report.json").read_text() == "{}"
    assert run.path("logs").is_dir()
    assert run.read_json("deployment.json") is None
    for name in ("run.json", "vms.parquet", "else.json", "logs/../x", "/etc/x", "../x", ""):
        with pytest.raises(ValueError, match="has no place"):
            run.path(name)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.write_text("links.json", '{"before":\n')
    with pytest.raises(Refused, match=r"links\.json: the run is damaged \(.* line 2 column 0\); "):
        run.read_json("links.json")


# ---------------------------------------------------------------- run.json


def test_a_record_survives_json(tmp_path: Path) -> None:
    run = make_run(tmp_path, sites=2, latency_ms=10)
    record = run.load()
    assert record_from_json(json.loads(json.dumps(record.to_json()))) == record
    assert run.update(commit="abc+").commit == "abc+"
    assert run.load() == dataclasses.replace(record, commit="abc+")


def test_the_record_has_the_keys_of_the_contract(tmp_path: Path) -> None:
    data = make_run(tmp_path).load().to_json()
    section = DOCS.split("## run.json")[1].split("## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)
    described = [name for keys, _ in rows for name in re.findall(r"`(\w+)`", keys)]
    assert described == list(data)
    # The parts of a part are named in its row.
    words = {name: text for keys, text in rows for name in re.findall(r"`(\w+)`", keys)}
    for part in ("machine", "vms", "window", "load", "harness"):
        assert all(f"`{key}`" in words[part] for key in data[part]), part
    assert set(store.PROBES) == set(re.findall(r"`(\w+)`", words["probes"]))


def test_every_table_has_the_columns_of_the_contract() -> None:
    section = DOCS.split("## Tables")[1]
    for name, columns in store.TABLES.items():
        text = re.split(rf"^### {name}\.parquet$", section, flags=re.MULTILINE)[1]
        text = re.split(r"^### \w+\.parquet$", text, flags=re.MULTILINE)[0]
        for column in columns:
            assert f"`{column.name}`" in text, (name, column.name)
            assert all(f"`{value}`" in text for value in column.values), (name, column.name)


def test_a_run_that_has_not_ended_is_partial(tmp_path: Path) -> None:
    complete = make_run(tmp_path / "a").load()
    assert (complete.is_partial, complete.why_partial) == (False, None)
    killed = make_run(tmp_path / "b", status="running").load()
    assert (killed.is_partial, killed.why_partial) == (True, "it has not ended, or was killed")
    partial = make_run(tmp_path / "c", status="partial", reason="interrupted").load()
    assert (partial.is_partial, partial.why_partial) == (True, "interrupted")


DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"backend": 3}, "'backend': Input should be a valid string"),
    ({"sites": "2"}, "'sites': Input should be a valid integer"),
    ({"status": "done"}, "'status': Input should be 'running', 'complete' or 'partial'"),
    ({"more": 1}, "'more': "),
    ({"vms": {"asked": 1}}, "'vms.active' is missing"),
    ({"vms": None}, "'vms': "),
    ({"machine": {"cpus": 2}}, "'machine.cpu_model': Field required"),
    ({"window": {"start": 1.0, "end": 2.0, "middle": 1.5}}, "'window.middle': "),
    ({"probes": ["mood"]}, "'mood' is not a probe"),
    ({"reason": "why"}, "'reason' says why"),
    ({"ended": None}, "'ended' is null while"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGED, ids=lambda value: str(value)[:30])
def test_a_record_is_read_strictly(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rewrite(run.folder, **changes)
    with pytest.raises(Refused, match="damaged") as caught:
        open_run(run.folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy == "name another run, or move this one away"


def test_every_key_has_to_be_there(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    whole = record_json(run.folder)
    later = {
        "merging", "time_scale", "validity", "drawn", "arm", "in_campaign", "recipe",
        "sample_every_s", "machines_before", "left_out",
    }  # fmt: skip
    for key in whole.keys() - later:  # which runs of earlier versions lack
        (run.folder / "run.json").write_text(
            json.dumps({name: value for name, value in whole.items() if name != key})
        )
        with pytest.raises(Refused, match="format null" if key == "format" else f"'{key}'"):
            run.load()


def test_another_format_is_refused_with_a_remedy(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rewrite(run.folder, format=4)
    with pytest.raises(Refused) as caught:
        runs_under(tmp_path)
    assert str(caught.value) == (
        f"{run.folder}/run.json: a run of format 4, but this version reads 1, 2 and 3; "
        "use the version that wrote it"
    )


@pytest.mark.parametrize("text", ["{", "[]", "", "\xff", '{"format": 1}'])
def test_a_damaged_run_json_is_one_line(text: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.folder / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Refused, match="the run is damaged") as caught:
        open_run(run.folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.folder / "run.json").unlink()
    for read in (lambda: open_run(run.folder), lambda: runs_under(tmp_path)):
        with pytest.raises(Refused, match=r"no run\.json, so not a run; "):
            read()


def test_a_record_that_couldnt_be_read_again_isnt_written(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ValueError, match="rtt_ms"):
        run.update(rtt_ms="fast")
    with pytest.raises(ValueError, match="'duration_s'"):
        run.update(duration_s=float("nan"))
    with pytest.raises(ValueError, match="'reason' says why"):
        run.update(status="partial")
    assert isinstance(run.load(), RunRecord)


# ---------------------------------------------------------------- tables


def test_rows_are_read_as_they_were_appended(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())
    for number in range(3):
        run.append("messages", [{**MESSAGES, "queue": f"q{number}"}])
    assert run.table("messages")["queue"].to_pylist() == ["q0", "q1", "q2"]
    assert not (run.folder / "messages.parquet").exists()
    run.merge()
    assert not (run.folder / "messages.parts").exists()
    run.append("messages", [{**MESSAGES, "queue": "q3"}])
    assert run.table("messages")["queue"].to_pylist() == ["q0", "q1", "q2", "q3"]
    run.merge()
    assert run.table("messages")["queue"].to_pylist() == ["q0", "q1", "q2", "q3"]
    assert pq.read_table(run.folder / "messages.parquet").num_rows == 4
    codec = pq.ParquetFile(run.folder / "messages.parquet").metadata.row_group(0).column(0)
    assert codec.compression == "ZSTD"


def test_small_parts_grow_instead_of_many(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())
    rows = [{**MESSAGES, "queue": f"q{number}"} for number in range(1100)]
    run.append("messages", rows[:999])
    for row in rows[999:]:
        run.append("messages", [row])
    parts = sorted(path.name for path in (run.folder / "messages.parts").iterdir())
    assert parts == ["000001.parquet", "000002.parquet"]
    assert run.table("messages").to_pylist() == rows


def test_rows_that_a_host_made_up_fail_the_run_in_a_line(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())
    for write in (run.append, run.write_table):
        with pytest.raises(store.Unfit) as caught:
            write("usage", [{}])
        assert caught.value.exit_code == 1
        assert str(caught.value).endswith("; look at the host that says so")


def test_killed_between_merging_and_tidying_up_no_row_counts_twice(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())
    run.append("messages", [MESSAGES])
    run.append("messages", [MESSAGES])
    shutil.copytree(run.folder / "messages.parts", tmp_path / "kept")
    run.merge()
    shutil.copytree(tmp_path / "kept", run.folder / "messages.parts")
    assert run.table("messages").num_rows == 2
    run.append("messages", [MESSAGES])
    assert run.table("messages").num_rows == 3
    run.merge()
    assert run.table("messages").num_rows == 3


def test_a_table_can_be_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.append("messages", [MESSAGES] * 5)
    run.write_table("messages", [MESSAGES])
    assert run.table("messages").to_pylist() == [MESSAGES]
    run.write_table("messages", run.table("messages"))
    assert run.table("messages").to_pylist() == [MESSAGES]


def test_a_killed_process_leaves_what_it_appended(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=(), status="running")
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from discovery_xp.store import open_run\n"
        f"run = open_run(Path({str(run.folder)!r}))\n"
        f"for _ in range(3): run.append('messages', [{MESSAGES!r}] * 10)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert run.table("messages").num_rows == 30


def test_half_written_files_are_not_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())
    run.append("messages", [MESSAGES])
    (run.folder / "messages.parts/.123-456").write_bytes(b"PAR1 half")
    (run.folder / ".messages.parquet.123").write_bytes(b"PAR1 half")
    assert run.table("messages").num_rows == 1


def test_threads_may_append_to_one_table(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())

    def append() -> None:
        for _ in range(10):
            run.append("messages", [MESSAGES])

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.table("messages").num_rows == 40


MISFITS: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"queue": "q"}, r"a row lacks, or has too many: \['acknowledged', 'delivered'"),
    ("messages", {**MESSAGES, "mood": "good"}, r"a row lacks, or has too many: \['mood'\]"),
    ("messages", {**MESSAGES, "queue": None}, "column 'queue' has nulls"),
    ("messages", {**MESSAGES, "published": "3"}, "table 'messages': "),
    ("messages", {**MESSAGES, "published": 2**70}, "table 'messages': "),
    ("calls", call(1.0, 2.0, api="cell"), "'cell' is not a value of column 'api'"),
    ("calls", call(1.0, 2.0, lazy=1), "table 'calls': "),
]


@pytest.mark.parametrize(("table", "row", "message"), MISFITS, ids=lambda value: str(value)[:30])
def test_rows_that_dont_fit_are_told(
    table: str, row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, probes=())
    with pytest.raises(ValueError, match=message):
        run.append(table, [row])
    assert not run.has(table)


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    run = make_run(tmp_path, probes=())
    run.write_table("traffic", [])
    assert run.has("traffic")
    assert run.table("traffic").num_rows == 0
    assert run.table("traffic").schema == store.schema("traffic")


def test_absent_tables_are_empty_unless_they_should_be_there(tmp_path: Path) -> None:
    off = make_run(tmp_path / "off", probes=("usage",))
    assert off.table("calls").num_rows == 0
    partial = make_run(tmp_path / "partial", status="partial", reason="killed")
    complete = make_run(tmp_path / "complete")
    for run in (partial, complete):
        (run.folder / "usage.parquet").unlink()
    assert partial.table("usage").num_rows == 0
    with pytest.raises(Refused, match=r"usage\.parquet: the run is damaged \(the run says it is"):
        complete.table("usage")
    (off.folder / "vms.parquet").unlink()
    with pytest.raises(Refused, match=r"vms\.parquet"):
        off.table("vms")


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run.folder / "usage.parquet"
    whole = path.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"nonsense"):
        path.write_bytes(damage)
        with pytest.raises(Refused, match=r"usage\.parquet: the run is damaged") as caught:
            run.table("usage")
        assert "\n" not in str(caught.value)


def test_a_table_of_other_columns_is_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rows = run.table("usage")
    pq.write_table(rows.drop_columns(["cpu_s"]), run.folder / "usage.parquet")
    with pytest.raises(Refused, match="cpu_s"):
        run.table("usage")
    # Another representation of the same values isn't.
    large = pa.table({**{n: rows[n] for n in rows.column_names},
                      "service": rows["service"].cast(pa.large_string())})  # fmt: skip
    pq.write_table(large, run.folder / "usage.parquet")
    assert run.table("usage").schema == store.schema("usage")


def test_importing_the_store_loads_no_arrow() -> None:
    code = (
        "import sys; import discovery_xp.store, discovery_xp.cli.main; "
        "sys.exit(bool({'pyarrow', 'pandas', 'matplotlib', 'jinja2'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
