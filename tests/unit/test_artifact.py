"""Artifacts: what is in one, that it is the same each time, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from discovery_xp.artifact import dictionary, making, metadata, packing, source
from discovery_xp.artifact.opening import is_artifact, opened
from discovery_xp.artifact.screening import Screening
from discovery_xp.artifact.source import Source, sources
from discovery_xp.artifact.subject import subject_of
from discovery_xp.errors import Refused
from discovery_xp.places import checkout
from discovery_xp.store import FILES, FOLDERS, TABLES, Run
from discovery_xp.store.records import _ORDER
from discovery_xp.store.words import COLUMN_WORDS, FILE_WORDS, RECORD_WORDS, TABLE_WORDS
from tests.unit.synthetic_run import make_run

CLAIMS = """\
claims:
  - sentence: No more than two VMs fail.
    figure: vms_failed
    of: {backend: mysql}
    at_most: 2
  - sentence: ROME is there.
    figure: duration_s
    of: {backend: rome}
    at_most: 1
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what has tests of its own: the report, and the source."""
    monkeypatch.setattr(making, "_site", lambda *_: {"site/index.html": b"a page"})
    monkeypatch.setattr(making, "sources", lambda _commits: Source({}, None, {}, (), ()))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results/mine"
    run = make_run(folder.parent, experiment="mine")
    run.write_text("topology.yaml", "sites: []\n")
    (run.path("logs") / "ansible.log").write_text("password = <services>\n")
    (run.folder / "notes.txt~").write_text("mine alone")
    (folder / "claims.yaml").write_text(CLAIMS)
    return folder


def made(results: Path, folder: Path) -> making.Made:
    return making.make(subject_of(results, Path("results")), folder)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.is_file())  # fmt: skip


# ---------------------------------------------------------------- what is in one


def test_an_artifact_has_all_that_a_reviewer_needs(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = made(results, out)
    (run,) = (out / "records/mine").iterdir()
    top = [name for name in names_in(out) if "/" not in name]
    assert top == [
        *(".zenodo.json", "ARTIFACT.md", "CITATION.cff", "DATA-DICTIONARY.md", "LICENSE"),
        *("SHA256SUMS", "artifact.json", "claims.yaml", "ro-crate-metadata.json"),
    ]
    assert {path.name for path in run.iterdir()} >= {"run.json", "vms.parquet", "topology.yaml"}
    assert done.files == len(names_in(out))
    assert [verdict.outcome for verdict in done.verdicts] == ["holds", "not known"]
    assert done.remarks == (
        f"1 files of runs are left out, such as {results / run.name}/notes.txt~",
    )
    page = (out / "ARTIFACT.md").read_text()
    assert "./xp reproduce out --claim 1\n" in page
    assert "reproduce out --claim 2" not in page, "there is no run to make again"
    assert "2 cores, 24 GiB of memory" in page
    assert (Run(run).load().experiment, (out / "claims.yaml").read_text()) == ("mine", CLAIMS)


def test_checksums_are_those_of_sha256sum(results: Path, tmp_path: Path) -> None:
    made(results, tmp_path / "out")
    check = ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path / "out", check=False).returncode == 0
    listed = (tmp_path / "out/SHA256SUMS").read_text().splitlines()
    assert len(listed) == len(names_in(tmp_path / "out")) - 1
    (tmp_path / "out/claims.yaml").write_text("other")
    assert subprocess.run(check, cwd=tmp_path / "out", check=False, capture_output=True).returncode


def test_the_same_runs_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    digests = set()
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        archive = made(results, tmp_path / place / "out").archive
        digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(digests) == 1
    with tarfile.open(archive) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.uid, entry.uname, entry.mode) for entry in entries} == {(0, "", 0o644)}
    (moment,) = {entry.mtime for entry in entries}
    assert moment == 1_795_450_200, "when the newest run ended"


def test_the_crate_names_each_file_and_makes_an_action_of_each_run(
    results: Path, tmp_path: Path
) -> None:
    made(results, tmp_path / "out")
    graph = json.loads((tmp_path / "out/ro-crate-metadata.json").read_text())["@graph"]
    by_id = {entity["@id"]: entity for entity in graph}
    files = {name for name, entity in by_id.items() if entity["@type"] == "File"}
    assert files == set(names_in(tmp_path / "out")) - {"SHA256SUMS", "ro-crate-metadata.json"}
    root = by_id["./"]
    assert root["datePublished"].startswith("2026-11-23T16:10:00")
    assert root["license"]["@id"] == "https://spdx.org/licenses/GPL-3.0-or-later"
    (action,) = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert by_id[action["result"]["@id"]]["@type"] == "Dataset"
    assert action["startTime"] == "2026-11-23T16:00:00Z"
    assert action["object"][0]["@id"] in files


def test_citations_name_authors_version_and_date(results: Path, tmp_path: Path) -> None:
    making.make(subject_of(results, Path("results")), tmp_path / "out", ["Ada Lovelace"])
    cited = yaml.safe_load((tmp_path / "out/CITATION.cff").read_text())
    assert (cited["type"], cited["date-released"]) == ("dataset", "2026-11-23")
    assert cited["authors"] == [{"name": "Ada Lovelace"}]
    zenodo = json.loads((tmp_path / "out/.zenodo.json").read_text())
    assert zenodo["creators"] == [{"name": "Ada Lovelace"}]


def test_the_repositorys_citation_is_that_of_its_distribution() -> None:
    assert (checkout() / "CITATION.cff").read_text() == metadata.software_citation()
    cited = yaml.safe_load(metadata.software_citation())
    project = (checkout() / "pyproject.toml").read_text()
    for key in ("version", "license"):
        assert f'{key} = "{cited[key]}"' in project
    assert len(cited["references"]) == 2


# ---------------------------------------------------------------- the data dictionary


def test_the_dictionary_describes_every_file_key_and_column() -> None:
    assert set(FILE_WORDS) == {"run.json", *FILES, *FOLDERS}
    assert set(TABLE_WORDS) == set(TABLES)
    assert tuple(RECORD_WORDS) == _ORDER
    assert {name: [column.name for column in columns] for name, columns in TABLES.items()} == {
        name: list(words) for name, words in COLUMN_WORDS.items()
    }
    page = dictionary.markdown()
    for columns in TABLES.values():
        for column in columns:
            assert re.search(rf"^\| `{column.name}` \| {column.type}", page, re.M)


@pytest.mark.parametrize(
    ("table", "column", "unit"),
    [("vms", "requested_at", "s since 1970, UTC"), ("vms", "boot_duration_s", "s"),
     ("calls", "duration_ms", "ms"), ("usage", "memory_bytes", "bytes"),
     ("statements", "bytes_sent", "bytes"), ("messages", "published", "1"),
     ("traffic", "port", ""), ("vms", "name", "")],
)  # fmt: skip
def test_a_columns_unit_is_that_of_its_name(table: str, column: str, unit: str) -> None:
    (found,) = [each for each in TABLES[table] if each.name == column]
    assert dictionary.unit(found) == unit


# ---------------------------------------------------------------- the source


def test_the_source_is_that_of_the_runs_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/large").write_text("x")
    (tmp_path / "xp").write_text("the first\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "First")
    first = git("rev-parse", "HEAD")
    (tmp_path / "xp").write_text("the second\n")
    git("commit", "--quiet", "-am", "Second")
    monkeypatch.setattr(source, "checkout", lambda: tmp_path)
    monkeypatch.setattr(source, "is_checkout", lambda: True)
    found = sources([first, f"{first}+", "f" * 40, None])
    assert found.own == f"source/discovery-xp-{git('rev-parse', 'HEAD')[:12]}.tar.gz"
    assert sorted(found.archives) == sorted({found.own, found.of_runs[first]})
    assert found.missing == ("f" * 40,)
    assert any("with changes, which are nowhere" in remark for remark in found.remarks)
    with tarfile.open(fileobj=io.BytesIO(found.archives[found.of_runs[first]])) as tar:
        top = f"discovery-xp-{first[:12]}"
        assert [name for name in tar.getnames() if name != top] == [f"{top}/xp"]
        content = tar.extractfile(f"{top}/xp")
        assert content is not None and content.read() == b"the first\n"
    assert found.archives == sources([first, f"{first}+"]).archives
    (tmp_path / "xp").write_text("the third\n")
    assert any("commit them first" in remark for remark in sources([]).remarks)
    monkeypatch.setattr(source, "is_checkout", lambda: False)
    assert sources([first]).own is None


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n", "a private key"),
        ("connection = mysql+pymysql://nova:0123abcd@10.0.0.1/nova\n", "a password in a URL"),
        ("  admin_password = hunter22\n", "a password of a configuration"),
        ('{"username": "u", "password": "hunter22"}', "a password in JSON"),
        ("X-Auth-Token: gAAAAA" + 100 * "b" + "\n", "a token of Keystone"),
        ("a line with c0ffee in it\n", "the password 'admin of here'"),
    ],
)
def test_a_secret_is_found_in_files_archives_and_tables(
    tmp_path: Path, text: str, kind: str
) -> None:
    screening = Screening({"admin of here": "c0ffee"})
    padding = "an ordinary line\n" * 70_000  # more than a block
    (tmp_path / "plain.log").write_text(padding + text)
    with tarfile.open(tmp_path / "records.tar.xz", "w:xz", preset=0) as tar:
        tar.add(tmp_path / "plain.log", "inside.log")
    for name in ("plain.log", "records.tar.xz"):
        with pytest.raises(Refused, match=f"{name}.* it holds {kind}"):
            screening.require_no_secret(tmp_path / name)
    run = make_run(tmp_path / "results")
    screening.require_no_secret_in_tables(run)
    rows = run.table("vms").to_pylist()
    rows[0]["error"] = f"it said\n{text}"
    run.write_table("vms", rows)
    with pytest.raises(Refused, match=rf"vms.parquet \(error\): it holds {kind}"):
        screening.require_no_secret_in_tables(run)


def test_names_of_passwords_are_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(
        "password = <services>\nconnection = mysql+pymysql://nova:<database>@10.0.0.1/nova\n"
        '{"password": "p<memcached>", "admin_password": null}\npassword = None\n'
        "see https://docs.example.org:8080/a@b and /home/ada/records\n"
    )
    screening = Screening()
    screening.require_no_secret(tmp_path / "a.conf")
    assert screening.homes == {"/home/ada/": str(tmp_path / "a.conf")}


def test_a_run_with_a_secret_is_refused_and_nothing_is_left(results: Path, tmp_path: Path) -> None:
    (run,) = results.glob("2*")
    (run / "logs/key").write_text("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n")
    (tmp_path / "place").mkdir()
    with pytest.raises(Refused, match="logs/key: it holds a private key"):
        made(results, tmp_path / "place/out")
    assert not list((tmp_path / "place").iterdir())
    making.make(subject_of(results, Path("results")), tmp_path / "place/out", without=("logs",))
    assert not list((tmp_path / "place/out").rglob("logs"))


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.tar.xz").write_text("no archive")
    with pytest.raises(Refused, match=r"records.tar.xz: it can't be looked through"):
        Screening().require_no_secret(tmp_path / "records.tar.xz")


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["out", "out.tar.gz"])
def test_what_is_in_the_way_stays(results: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(Refused, match=f"{name} is there already; move it away"):
        made(results, tmp_path / "out")
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("step", ["_write_file", "_write_archive"])
def test_a_full_disk_leaves_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    usual = getattr(packing, step)
    written = []

    def full(*words: object) -> object:
        written.append(words)
        if step == "_write_archive" or len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device", "/some/place")
        return usual(*words)

    monkeypatch.setattr(packing, step, full)
    (tmp_path / "place").mkdir()
    with pytest.raises(Refused, match=r"/some/place: can't be written \(No space left"):
        made(results, tmp_path / "place/out")
    assert not list((tmp_path / "place").iterdir())


def test_a_folder_that_cannot_be_written_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="can't be written"):
        made(results, tmp_path / "nowhere/out")


# ---------------------------------------------------------------- opening


@pytest.fixture
def artifact(results: Path, tmp_path: Path) -> Path:
    return made(results, tmp_path / "out").folder


def test_an_artifact_opens_as_a_folder_and_as_an_archive(artifact: Path, tmp_path: Path) -> None:
    for path in (artifact, artifact.with_name("out.tar.gz")):
        assert is_artifact(path)
        with opened(path) as folder:
            subject = subject_of(folder, Path("results"))
            assert [run.load().experiment for run in subject.runs] == ["mine"]
            assert len(subject.claims.claims) == 2
    assert not folder.exists(), "what was unpacked is gone"
    (tmp_path / "link").symlink_to(artifact)
    with opened(tmp_path / "link"):
        pass


def damaged(folder: Path) -> None:
    (folder / "claims.yaml").write_text(CLAIMS.replace("2", "3"))


def shortened(folder: Path) -> None:
    (folder / "claims.yaml").unlink()


def linked(folder: Path) -> None:
    (folder / "claims.yaml").unlink()
    (folder / "claims.yaml").symlink_to("/etc/hostname")


def added(folder: Path) -> None:
    shutil.copytree(folder / "records/mine", folder / "records/other")


def leading_out(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{64 * '0'}  records/../../secret\n")


def absolute(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{64 * '0'}  /etc/passwd\n")


def garbled(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("no checksum\n")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (damaged, "claims.yaml is damaged: its checksum isn't that of SHA256SUMS"),
        (shortened, "claims.yaml is missing, or no file"),
        (linked, "claims.yaml is missing, or no file"),
        (added, "isn't in SHA256SUMS"),
        (leading_out, "'records/../../secret' leads out of it"),
        (absolute, "'/etc/passwd' leads out of it"),
        (garbled, "SHA256SUMS:1: 'no checksum' is no checksum"),
    ],
)
def test_a_folder_that_was_changed_is_refused(
    artifact: Path, harm: Callable[[Path], None], says: str
) -> None:
    harm(artifact)
    with pytest.raises(Refused, match=re.escape(says)), opened(artifact):
        pass


def test_archives_that_are_damaged_or_lead_out_are_refused(artifact: Path, tmp_path: Path) -> None:
    archive = artifact.with_name("out.tar.gz")
    data = bytearray(archive.read_bytes())
    (tmp_path / "short.tar.gz").write_bytes(data[: len(data) // 2])
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.tar.gz").write_bytes(data)
    (tmp_path / "text.tar.gz").write_text("no archive")
    with tarfile.open(tmp_path / "escaping.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("out/../../escaped"))
    with tarfile.open(tmp_path / "link.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("out/link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(entry)
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz") as tar:
        pass
    for name in ("short", "flipped", "text", "escaping", "link", "empty", "missing"):
        with pytest.raises(Refused) as caught, opened(tmp_path / f"{name}.tar.gz"):
            pass
        assert f"{name}.tar.gz: " in str(caught.value) and "; " in str(caught.value)
    assert not (tmp_path / "escaped").exists()
