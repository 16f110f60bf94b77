"""Files of ours: private from their first moment, never through another user's hands."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discovery_xp import files, software
from discovery_xp.errors import Refused
from discovery_xp.places import cache
from discovery_xp.providers.grid5000 import slots
from discovery_xp.providers.local import image

STRANGER = 54321


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `path` another user's, as far as this process can tell."""
    if os.geteuid() == 0:
        os.lchown(path, STRANGER, STRANGER)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=lambda umask: f"{umask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_folders_and_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    files.make_folder(tmp_path / "a/b/c")
    files.write_atomically(tmp_path / "a/file", "x")
    assert {mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")} == {0o700}
    assert mode(tmp_path / "a/file") == 0o600


def test_what_hosts_read_is_readable_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    files.write_public(tmp_path / "etc/systemd/file", "x")
    assert {mode(tmp_path / name) for name in ("etc", "etc/systemd")} == {0o755}
    assert mode(tmp_path / "etc/systemd/file") == 0o644


def test_results_have_no_more_rights_than_the_user_gives(tmp_path: Path, umask: int) -> None:
    files.write_atomically(tmp_path / "run.json", "x", files.PUBLIC_FILE)
    assert mode(tmp_path / "run.json") == 0o644 & ~umask


def test_the_umask_is_only_ever_narrowed(umask: int) -> None:
    files.narrow_umask()
    found = os.umask(umask)
    assert found == umask | 0o022


def test_a_secret_is_private_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        seen.append(mode(next(tmp_path.glob(".secret.*"))))

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0)
    try:
        files.write_atomically(tmp_path / "secret", "x")
    finally:
        os.umask(before)
    assert seen == [0o600, 0o600]


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "out").symlink_to(precious)
    files.write_atomically(tmp_path / "out", "new")
    assert precious.read_text() == "kept"
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "out").read_text() == "new"


def test_a_log_is_private_from_its_first_moment_and_no_link(tmp_path: Path, umask: int) -> None:
    for line in ("one\n", "two\n"):
        with files.open_to_append(tmp_path / "log") as log:
            assert mode(tmp_path / "log") == 0o600
            log.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    (tmp_path / "link").symlink_to("log")
    with pytest.raises(OSError, match="symbolic links"):
        files.open_to_append(tmp_path / "link")


def test_no_temporary_name_can_be_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: names.extend(p.name for p in tmp_path.glob(".f.*")))
    for _ in range(20):
        files.write_atomically(tmp_path / "f", "x")
    assert len(set(names)) == 20


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomically(tmp_path / "f", "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(tmp_path / "f", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


# ---------------------------------------------------------------- places


def test_an_own_place_is_accepted_and_what_is_missing_too(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("own/../own")
    files.require_ours(tmp_path / "link/not/there", "-")


def test_a_place_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted").mkdir()
    give_away(tmp_path / "planted", monkeypatch)
    with pytest.raises(Refused, match=r" belongs to .*; choose another"):
        files.require_ours(tmp_path / "planted/testbeds", "choose another")


def test_a_link_of_another_user_is_refused_wherever_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to("own")
    give_away(tmp_path / "link", monkeypatch)
    with pytest.raises(Refused, match="belongs to"):
        files.require_ours(tmp_path / "link", "-")


@pytest.mark.parametrize("rights", [0o777, 0o757, 0o702])
def test_a_folder_that_others_may_write_in_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, rights: int
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(rights)
    with pytest.raises(Refused, match=f"can be changed by other users; 'chmod go-w {folder}'"):
        files.require_ours(folder / "testbeds", "-")
    folder.chmod(rights & ~0o022)
    files.require_ours(folder / "testbeds", "-")


def test_a_folder_in_which_each_moves_his_own_is_fit(tmp_path: Path) -> None:
    folder = tmp_path / "like-tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    files.require_ours(folder / "home", "-")


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Refused, match="leads nowhere"):
        files.require_ours(tmp_path / "a", "-")


@pytest.mark.parametrize(
    "use",
    [
        lambda: image._images(),
        lambda: software._make_folder(cache() / "wheels/openstack"),
        lambda: slots._cache_folder(),
    ],
    ids=["root trees", "wheels", "Grid'5000's description"],
)
def test_a_cache_that_others_may_write_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[], object]
) -> None:
    """Hosts run as root what is in it, and this machine reads it back."""
    monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path / "cache"))
    use()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(Refused, match="can be changed by other users"):
        use()


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError):
        files.read_text(Path("/dev/zero") if kind == "device" else path)


def test_no_more_is_read_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_FILE_BYTES", 2**20)
    (tmp_path / "huge").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(ValueError, match="over 1 MiB"):
        files.read_text(tmp_path / "huge")


# ---------------------------------------------------------------- full disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("name", ["/home/state.json", b"/home/state.json"])
def test_a_full_disk_is_told_of_in_one_line_however_deep_it_lies(
    number: int, name: str | bytes
) -> None:
    try:
        try:
            raise OSError(number, os.strerror(number), name)
        except OSError as error:
            raise RuntimeError("a library's own") from error
    except RuntimeError as error:
        told = files.no_room(error)
    assert told is not None
    assert told.exit_code == 1
    assert str(told) == (
        f"/home/state.json: {os.strerror(number).lower()}; free some space; the same command "
        "goes on, and 'destroy' needs none"
    )


def test_other_errors_are_no_full_disks() -> None:
    assert files.no_room(OSError(errno.ENOENT, "no such file")) is None
    assert files.no_room(ValueError("x")) is None
