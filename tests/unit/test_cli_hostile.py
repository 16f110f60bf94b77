"""Command lines that nobody would type on purpose: one line, an exit code, nothing touched."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from discovery_xp.cli import guard as cli_guard
from discovery_xp.cli.guard import DEFECT
from discovery_xp.cli.main import cli
from discovery_xp.errors import Failed
from discovery_xp.planning import plan_checks
from discovery_xp.planning.kernel import own_networks
from discovery_xp.testbeds.testbed import Testbed


class Ended:
    """How a command ended."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr


class Runner:
    """Runs commands in this process, as the program would."""

    def __init__(self, patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str]) -> None:
        self.patch, self.output = patch, output

    def __call__(self, *arguments: str, command: click.Command = cli) -> Ended:
        self.patch.setattr(sys, "argv", ["discovery-xp", *arguments])
        code = cli_guard.run(command)
        return Ended(code, *self.output.readouterr())


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Runner]:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    yield Runner(monkeypatch, capsys)
    for each, handler in handlers.items():
        signal.signal(each, handler)


NAMES = ["", "..", "/", "a/b", "x" * 300, "a\nb", "\udcff", "a\x1b[2J"]
NAMED = [
    ["network", "measure", "--testbed"],
    ["network", "show", "--testbed"],
    ["network", "reset", "--testbed"],
    ["network", "set", "--delay", "1ms", "--testbed"],
    ["backup", "--testbed"],
    ["status", "--testbed"],
    ["inventory", "--testbed"],
    ["destroy", "--testbed"],
    ["destroy", "--forget", "--name"],
    ["destroy", "--cloud-only", "--testbed"],
    ["openstack", "--testbed"],
    ["plan", "--sites", "2", "--name"],
    ["slots", "--sites", "2", "--name"],
    ["up", "--sites", "2", "--name"],
    ["deploy", "--sites", "2", "--name"],
    ["bench", "--name"],
]


@pytest.mark.parametrize("words", NAMED, ids=" ".join)
def test_a_bad_name_is_refused_and_touches_nothing(
    words: list[str], run: Runner, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for name in (*NAMES, str(precious)):
        ended = run(*words, name)
        assert (ended.code, ended.stdout) == (2, "")
        assert len(ended.stderr.splitlines()) == 1
        assert "is not a name; write 1 to 30 of a-z" in ended.stderr
        assert ended.stderr.removesuffix("\n").isprintable()
        assert len(ended.stderr) < 200
    assert precious.read_text() == "x"
    assert sorted(tmp_path.rglob("*")) == before


def test_ssh_takes_names_alike(run: Runner) -> None:
    for name in NAMES:
        ended = run("ssh", "--testbed", name, "host")
        assert (ended.code, "--testbed: " in ended.stderr) == (2, True)


@pytest.mark.parametrize("words", NAMED[:7], ids=" ".join)
def test_an_unknown_testbed_is_neither_locked_nor_made(
    words: list[str], run: Runner, tmp_path: Path
) -> None:
    ended = run(*words, "nowhere")
    assert (ended.code, ended.stderr.startswith("no testbed 'nowhere'; ")) == (2, True)
    assert not (tmp_path / "home").exists()


NUMBERS = ["0", "-1", "99999999999", "1e999", "nan", "inf", "9" * 5000, "", "0x10", "1.5"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda text: text[:11])
def test_odd_numbers_are_one_line(number: str, run: Runner) -> None:
    for words in (
        ["plan", "--sites", number],
        ["plan", "--sites", "2", "--latency", number],
        ["slots", "--sites", "2", "--most", number],
        ["bench", "--scenario", "/nowhere", "--vms", number],
    ):
        ended = run(*words)
        assert (ended.code, ended.stdout) == (2, ""), words
        assert len(ended.stderr.splitlines()) == 1, words
        assert len(ended.stderr) < 1200


@pytest.mark.parametrize("latency", ["1e999ms", "9" * 50 + "s", "-1ms", "nanms", "61s", "1 year"])
def test_odd_latencies_are_one_line(latency: str, run: Runner) -> None:
    ended = run("plan", "--sites", "2", "--latency", latency)
    assert (ended.code, ended.stderr.startswith("--latency: '")) == (2, True)


def test_misuse_is_one_line_with_the_help_to_read(run: Runner) -> None:
    for words, message in (
        (["fly"], "No such command 'fly'"),
        (["plan", "--fly"], "No such option"),
        (["plan", "--backend", "a\x1b[2J\nb"], "'a\\x1b[2J\\nb' is not one of"),
        (["openstack", "--cloud", "root", "x"], "'root' is not one of"),
        (["network", "set", "--between", "a"], "requires 2 arguments"),
        (["validate"], "Missing argument"),
    ):
        ended = run(*words)
        assert (ended.code, ended.stdout) == (2, "")
        (line,) = ended.stderr.splitlines()
        assert message in line
        assert line.endswith("--help'")


def test_what_isnt_a_file_is_refused_wherever_one_is_taken(run: Runner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "/dev/zero", ".", "\udcff", "a\nb", "x" * 5000):
        for words in (
            ["validate"],
            ["plan"],
            ["up"],
            ["deploy"],
            ["slots"],
            ["bench", "--scenario"],
        ):
            ended = run(*words, path)
            assert (ended.code, ended.stdout) == (2, ""), (words, path)
            assert len(ended.stderr.splitlines()) == 1
            assert len(ended.stderr) < 1200


def test_a_backup_goes_where_nothing_is(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery_xp.testbeds.testbed.choose", lambda _name: Testbed("mine"))
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    for path, words in (
        ("link", "link exists"),
        ("file", "file exists"),
        ("file/x", "can't be made (Not a directory)"),
        ("x" * 300, "can't be made (File name too long)"),
        ("", ". exists"),
    ):
        ended = run("backup", "--to", path)
        assert (ended.code, words in ended.stderr) == (2, True), path


# ---------------------------------------------------------------- what validate refuses


def test_validate_refuses_what_a_plan_refuses(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    for text, words in (
        ("sites: [{name: a, controllers: 0}]", "'t' has no controller"),
        ("sites: [{name: a, computes: 0}]", "'t' has no compute"),
        (
            "sites: [{name: a}]\nprovider: {type: g5k, site: s, cluster: c, walltime: '00:20:00'}",
            "'t' has a walltime of 00:20:00",
        ),
    ):
        path.write_text(text)
        for command in ("validate", "plan"):
            ended = run(command, str(path))
            assert (ended.code, words in ended.stderr) == (2, True), command
        assert run("validate", "--hosts-only", str(path)).code == 0
    path.write_text("sites: [{name: a}, {name: b}]\nnetwork: {loss: 95%}")
    assert "can't be measured; write at most '90%'" in run("validate", str(path)).stderr
    path.write_text("sites: [{name: a}, {name: b}]\nnetwork: {loss: 89%}")
    assert run("validate", str(path)).code == 0


ROUTES = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 0102A8C0 0003 0 0 0 00000000 0 0 0
eth0 0002A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0
dxp0123456789 0000460A FE00460A 0003 0 0 0 0000FFFF 0 0 0
docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0
"""


def test_networks_of_the_machine_are_its_routes_but_those_into_testbeds() -> None:
    assert [(device, str(network)) for device, network in own_networks(ROUTES)] == [
        ("eth0", "192.168.2.0/24"),
        ("docker0", "172.17.0.0/16"),
    ]


def test_validate_refuses_a_network_of_this_machine(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_checks, "own_networks", lambda: own_networks(ROUTES))
    path = tmp_path / "t.yaml"
    for network, code in (("192.168.0.0/16", 2), ("10.70.0.0/16", 0), ("172.17.0.0/20", 2)):
        path.write_text(f"sites: [{{name: a}}]\nprovider: {{type: local, network: {network}}}")
        ended = run("validate", str(path))
        assert ended.code == code
        assert ("meets this machine's own" in ended.stderr) == (code == 2)


def test_a_plan_shows_a_files_words_as_they_are(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "sites: [{name: a}]\n"
        "provider: {type: g5k, site: s, cluster: c, environment: 'deb:smile:', job_types: [x=b|c]}"
    )
    ended = run("plan", str(path))
    assert ended.code == 0
    assert "deploy deb:smile: on them" in ended.stdout


# ---------------------------------------------------------------- another home's testbeds


def test_a_bare_destroy_leaves_testbeds_of_other_homes(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from discovery_xp import ending
    from discovery_xp.providers import local

    monkeypatch.setattr(ending, "_is_root", lambda: True)
    monkeypatch.setattr(local, "homes", lambda: {"theirs": Path("/elsewhere")})
    monkeypatch.setattr(ending, "release", lambda *_: pytest.fail("it isn't ours to release"))
    ended = run("destroy")
    assert (ended.code, "there is no testbed" in ended.stderr) == (2, True)
    ended = run("destroy", "--testbed", "theirs")
    assert ended.code == 2
    assert "testbed 'theirs' belongs to another home, /elsewhere; " in ended.stderr


# ---------------------------------------------------------------- the last resort


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def test_a_defect_is_one_line_and_a_file(run: Runner, tmp_path: Path) -> None:
    ended = run(command=failing(KeyError("a\x1b\nb" * 1000)))
    assert ended.code == DEFECT
    (line,) = ended.stderr.splitlines()
    assert line.isprintable()
    assert len(line) < 1200
    (path,) = tmp_path.glob("discovery-xp-*.traceback")
    assert line.endswith(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in path.read_text()


def test_what_the_machine_lacks_is_one_line(run: Runner, tmp_path: Path) -> None:
    ended = run(command=failing(OSError(errno.ENOSPC, "No space left on device", "/x\n")))
    assert ended.code == Failed.exit_code
    assert ended.stderr.startswith("/x\\n: no space left on device; free some space")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.traceback"))


def test_a_reader_that_has_seen_enough_is_no_failure(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # click puts another in its place
    ended = run(command=failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert (ended.code, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "redirection", "code"),
    [
        ("--sites 2", ">&-", 0),
        ("--sites 2", "2>&- <&-", 0),
        ("--sites 0", ">&- 2>&- <&-", 2),
        ("--sites 2", ">/dev/full", 1),
        ("--sites 0", "2>/dev/full", 2),
    ],
)
def test_closed_and_full_outputs_end_well(words: str, redirection: str, code: int) -> None:
    done = subprocess.run(
        f"{sys.executable} -m discovery_xp.cli plan {words} {redirection}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.count("o space left on device; ") == done.stderr.count("\n") == (code == 1)


def test_a_closed_stream_is_no_file_of_ours(tmp_path: Path) -> None:
    # The next file that is opened would get the stream's number, and what programs print.
    code = (
        "import os; from discovery_xp.cli.guard import open_streams; open_streams(); "
        "open('number', 'w').write(str(os.open('f', os.O_CREAT)))"
    )
    subprocess.run(
        f'{sys.executable} -c "{code}" >&- 2>&- <&-',
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert int((tmp_path / "number").read_text()) > 2


def test_texts_that_no_locale_has_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "é\udcff.yaml"
    path.write_text("sites: [{name: a}, {name: b}]\nnetwork: {delay: 2ms, jitter: 1ms}\n")
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                   {"LC_ALL": "C.UTF-8", "NO_COLOR": "1"}):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "discovery_xp.cli", "plan", os.fsencode(path)],
            env={**os.environ, **locale},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
