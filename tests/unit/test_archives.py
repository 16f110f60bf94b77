"""Archives of hostile hosts: files inside and of bounded size, or nothing at all."""

import base64
import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery_xp.boundary.archives import Hostile, Limits, decode, inflate, unpack
from discovery_xp.onhost import backup

SMALL = Limits(packed=2**20, file=1000, total=2500, files=5, name=60, depth=4)

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"x", **values: object) -> Entry:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in values.items():
        setattr(made, key, value)
    return made, data


def packed(entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_are_written_with_modes_of_ours(tmp_path: Path) -> None:
    data = packed([entry("a/b/c", b"one", mode=0o6777, uid=7, uname="x"), entry("./d", b"")])
    before = os.umask(0)
    try:
        assert unpack(data, tmp_path / "new") == 2
    finally:
        os.umask(before)
    assert files_under(tmp_path) == {"new/a/b/c": b"one", "new/d": b""}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()} == {
        0o700
    }


def test_only_what_is_wanted_is_written(tmp_path: Path) -> None:
    data = packed([entry("a"), entry("b"), entry("c/d")])
    assert unpack(data, tmp_path / "new", only=("a", "z")) == 1
    assert files_under(tmp_path) == {"new/a": b"x"}


def test_what_our_own_module_packs_is_unpacked(tmp_path: Path) -> None:
    long = "configuration/" + "n" * 200
    data = backup.pack({"configuration/etc/nova/nova.conf": b"[x]\n", "é": b"", long: b"1"})
    assert unpack(data, tmp_path / "new") == 3
    assert files_under(tmp_path / "new")["configuration/etc/nova/nova.conf"] == b"[x]\n"


LINK = entry("link", b"", type=tarfile.SYMTYPE, linkname="/etc")
HOSTILE: dict[str, Callable[[], bytes]] = {
    "absolute": lambda: packed([entry("/tmp/pwned")]),
    "above": lambda: packed([entry("../pwned")]),
    "above later": lambda: packed([entry("a"), entry("a/../../pwned")]),
    "dot": lambda: packed([entry(".")]),
    "empty part": lambda: packed([entry("a//b")]),
    "no name": lambda: packed([entry("")]),
    "control": lambda: packed([entry("a\x1b[2Jb")]),
    "line": lambda: packed([entry("a\nb")]),
    "long": lambda: packed([entry("n" * 61)]),
    "deep": lambda: packed([entry("a/b/c/d/e")]),
    "link": lambda: packed([LINK]),
    "through a link": lambda: packed([LINK, entry("link/pwned")]),
    "hard link": lambda: packed([entry("a"), entry("b", b"", type=tarfile.LNKTYPE, linkname="a")]),
    "device": lambda: packed([entry("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5)]),
    "pipe": lambda: packed([entry("a", b"", type=tarfile.FIFOTYPE)]),
    "folder": lambda: packed([entry("a", b"", type=tarfile.DIRTYPE)]),
    "twice": lambda: packed([entry("a"), entry("a", b"y")]),
    "twice otherwise": lambda: packed([entry("a"), entry("./a", b"y")]),
    "a file and a folder": lambda: packed([entry("a"), entry("a/b")]),
    "a folder and a file": lambda: packed([entry("a/b"), entry("a")]),
    "many": lambda: packed([entry(f"a{number}") for number in range(6)]),
    "large": lambda: packed([entry("a", b"x" * 1001)]),
    "large together": lambda: packed([entry(f"a{number}", b"x" * 900) for number in range(3)]),
    "a bomb": lambda: gzip.compress(packed([])[:10] + bytes(50 * 2**20)),
    "a bomb of zeros": lambda: gzip.compress(bytes(50 * 2**20)),
    "a long header": lambda: packed([entry("n" * 100_000)], form=tarfile.GNU_FORMAT),
    "headers upon headers": lambda: gzip.compress(
        tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT).replace(b"\x000", b"\x00L")
    ),
    "no tar": lambda: gzip.compress(b"what" * 1000),
    "no gzip": lambda: b"what" * 1000,
    "nothing": lambda: b"",
    "cut": lambda: packed([entry("a", os.urandom(900)), entry("b", os.urandom(900))])[:-700],
    "packed too large": lambda: os.urandom(2**20 + 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_leaves_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(Hostile) as refused:
        unpack(HOSTILE[name](), tmp_path / "new", SMALL)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200
    assert list(tmp_path.iterdir()) == []
    assert not Path("/tmp/pwned").exists()


def test_a_sparse_file_takes_no_room_that_it_does_not_fill(tmp_path: Path) -> None:
    info, data = entry("a", b"x" * 512)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                        "GNU.sparse.name": "a", "GNU.sparse.realsize": str(2**60)}  # fmt: skip
    with pytest.raises(Hostile):
        unpack(packed([(info, data)]), tmp_path / "new", SMALL)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError):
        unpack(packed([entry("a")]), tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(FileExistsError):
        unpack(packed([entry("a")]), tmp_path / "link")
    assert files_under(tmp_path) == {}


NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "/", "\x00", "é", "x" * 300, "~"]), max_size=5
).map("/".join)


@settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(
        st.tuples(NAMES, st.binary(max_size=20), st.sampled_from(b"0125367LKxg\x00")), max_size=4
    ),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3),
)
def test_no_archive_writes_outside_of_its_folder(
    entries: list[tuple[str, bytes, int]],
    changes: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    raw = bytearray(
        gzip.decompress(
            packed(
                [
                    entry(name, data, type=bytes([kind]), linkname="..")
                    for name, data, kind in entries
                ],
                tarfile.GNU_FORMAT,
            )
        )
    )
    for place, value in changes:
        raw[place % len(raw)] = value
    folder = tmp_path_factory.mktemp("outer")
    try:
        count = unpack(gzip.compress(bytes(raw)), folder / "new", SMALL)
    except Hostile:
        assert list(folder.iterdir()) == []
    else:
        assert [path.name for path in folder.iterdir()] == ["new"]
        found = [path for path in folder.rglob("*") if not path.is_dir()]
        assert len(found) == count
        assert all(path.is_file() and not path.is_symlink() for path in found)


# ---------------------------------------------------------------- base64 and gzip alone


@pytest.mark.parametrize("text", [None, 5, ["x"], {}, "é", "a", "YWJj\n!", "=" * 8])
def test_what_is_no_base64_is_hostile(text: object) -> None:
    with pytest.raises(Hostile):
        decode(text)


def test_base64_is_bounded() -> None:
    assert decode(base64.b64encode(b"x" * 2**20).decode(), SMALL) == b"x" * 2**20
    with pytest.raises(Hostile, match="over 1 MiB"):
        decode(base64.b64encode(b"x" * (2**20 + 3)).decode(), SMALL)


def test_gzip_is_bounded() -> None:
    assert inflate(gzip.compress(b"x" * 1000), 1000) == b"x" * 1000
    for damaged in (gzip.compress(b"x" * 1001), gzip.compress(b"x" * 100)[:-9], b"x", b"\x1f\x8b"):
        with pytest.raises(Hostile):
            inflate(damaged, 1000)


# ---------------------------------------------------------------- what a host packs by itself


def test_a_host_packs_no_more_than_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PACKED_BYTES", 3000)
    data = backup.pack_within({"small": b"x", "large": os.urandom(5000), "mid": os.urandom(2000)})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == ["large.left-out", "mid", "small"]


def test_of_a_long_journal_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "FILE_BYTES", 4)
    assert backup.end_of(io.BytesIO(b"12345678")) == b"(4 bytes before this are left out)\n5678"
    assert backup.end_of(io.BytesIO(b"1234")) == b"1234"


def test_a_pipe_among_the_configuration_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "nova.conf").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert backup.files_under(str(tmp_path)) == [str(tmp_path / "nova.conf")]
