"""Run cases, each command in a process of its own that can do no harm.

`python -m tests.fuzz.worker` reads cases as JSON lines and answers each with a line: an
outcome for each command.  It loads the package once and forks for each command, so that a
command costs what it does and not what loading costs.  The process

* is nobody's where the worker is root's, in a network without any interface;
* has some seconds of CPU, a bound on memory and on the size of files;
* tells of every file that Python opens to write, makes, moves, changes or removes, of every
  program started and every address spoken to, by an audit hook.  What lies outside of the
  folders made for it is refused.
"""

# An audit hook sees paths as os has them.
# ruff: noqa: PTH100, PTH115, PTH118, PTH119, PTH120

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import io
import json
import os
import pwd
import resource
import select
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.bases import BASES, CANARY
from tests.fuzz.case import HOME, WORK, Case, Content, bytes_of, case_from_json

MEMORY_BYTES = 2 * 2**30
FILE_BYTES = 64 * 2**20
SHOWN_BYTES = 200_000
PAGE_BYTES = 20 * 2**20
NOBODY = 65534

# ---------------------------------------------------------------- the audit hook

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# By event: which of its arguments are paths that are changed.
_CHANGES: Mapping[str, tuple[int, ...]] = {
    "os.mkdir": (0,), "os.rmdir": (0,), "os.remove": (0,), "os.rename": (0, 1),
    "os.link": (1,), "os.symlink": (1,), "os.chmod": (0,), "os.chown": (0,),
    "os.truncate": (0,), "os.utime": (0,), "os.setxattr": (0,), "os.removexattr": (0,),
}  # fmt: skip
# Those that change what a link leads to, and not the link.
_FOLLOW = ("os.chmod", "os.chown", "os.truncate", "os.utime", "os.setxattr")
_STARTS = {"subprocess.Popen": 1, "os.exec": 1, "os.posix_spawn": 1, "os.system": 0,
           "os.spawn": 2, "pty.spawn": 0}  # fmt: skip
_TALKS = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
          "socket.getaddrinfo", "socket.gethostbyname")  # fmt: skip
_RUNS_CODE = ("pickle.find_class", "pickle.load")
_HARMLESS = ("/dev/null", "/dev/tty", "/dev/full", "/dev/stdout", "/dev/stderr")


class Watch:
    """What a process did, as its audit hook saw it."""

    def __init__(self) -> None:
        self.is_on = False
        self.inside: tuple[str, ...] = ()
        self.seen: list[tuple[str, str]] = []
        self.ends_at_exec: Callable[[], None] = lambda: None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The hook itself."""
        if not self.is_on:
            return
        if event == "open":
            self._open(*arguments)
        elif event in _CHANGES:
            for index in _CHANGES[event]:
                self._change(event, arguments[index], arguments)
        elif event in _STARTS:
            self._start(event, arguments[_STARTS[event]])
        elif event in _TALKS:
            self._refuse(
                "talks", f"{event} {arguments[-1] if len(arguments) < 3 else arguments[:2]}"
            )
        elif event in _RUNS_CODE:
            self._note("unpickles", f"{event} {arguments}")

    def _open(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int) or not (isinstance(flags, int) and flags & _WRITES):
            return
        self._judge("open to write", path, follow=True)

    def _change(self, event: str, path: Any, arguments: tuple[Any, ...]) -> None:
        if isinstance(path, int):
            return
        folder = next((each for each in reversed(arguments) if isinstance(each, int)), -1)
        if event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename") and folder >= 0:
            with contextlib.suppress(OSError):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        self._judge(event, path, follow=event in _FOLLOW)

    def _judge(self, what: str, path: Any, follow: bool) -> None:
        text = os.fsdecode(path)
        if text in _HARMLESS:
            return
        try:
            real = os.path.realpath(text) if follow else os.path.join(
                os.path.realpath(os.path.dirname(os.path.abspath(text))), os.path.basename(text)
            )  # fmt: skip
        except (OSError, ValueError):
            return  # it can't be opened either
        if not real.startswith(self.inside) and real not in _HARMLESS:
            self._refuse("outside", f"{what} {real}")

    def _start(self, event: str, words: Any) -> None:
        told = " ".join(map(str, words)) if isinstance(words, (list, tuple)) else str(words)
        self._note("starts", f"{event} {told}")
        if event == "os.exec":
            self.ends_at_exec()
        raise PermissionError(1, "not while fuzzing", told[:100])

    def _refuse(self, kind: str, words: str) -> None:
        self._note(kind, words)
        raise PermissionError(1, "not while fuzzing", words[:200])

    def _note(self, kind: str, words: str) -> None:
        if len(self.seen) < 200:
            self.seen.append((kind, words[:500]))


WATCH = Watch()

# ---------------------------------------------------------------- laying down


def lay_down(root: Path, case: Case) -> None:
    """Make the case's files below `root`."""
    for folder in (root, root / WORK, root / HOME, root / "tmp", root / "outside"):
        folder.mkdir(mode=0o755)
    (root / "outside/secret").write_text(CANARY)
    for name, each in {**BASES[case.base](), **case.files}.items():
        _lay(root / name.replace("{outside}", str(root / "outside")), each, root)
    if os.geteuid() == 0:
        for folder_, folders, files in os.walk(root):
            for name in (".", *folders, *files):
                os.chown(os.path.join(folder_, name), NOBODY, NOBODY, follow_symlinks=False)
        for each_ in (root, root / "outside", root / "outside/secret"):
            os.chown(each_, 0, 0)


def _lay(path: Path, each: Content, root: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(each, dict):
        if each.keys() & {"link", "fifo", "folder", "missing", "size", "mode"}:
            path.unlink(missing_ok=True)
        if "link" in each:
            path.symlink_to(each["link"].replace("{outside}", str(root / "outside")))
        elif "fifo" in each:
            os.mkfifo(path)
        elif "folder" in each:
            path.mkdir(exist_ok=True)
        elif "size" in each:
            with path.open("wb") as file:
                file.truncate(each["size"])
        elif "mode" in each:
            path.touch()
            path.chmod(each["mode"])
    data = bytes_of(each)
    if data is not None:
        path.write_bytes(data)


def snapshot(root: Path) -> dict[str, str]:
    """What is below work, home and tmp: kind and size by path."""
    found = {}
    for place in (WORK, HOME, "tmp"):
        for folder, folders, files in os.walk(root / place):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                    found[os.path.relpath(path, root)] = f"{stat.S_IFMT(status.st_mode):o} {size}"
    return found


def pages(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The texts of pages and tables that a command wrote, for readers and other programs."""
    found = {}
    for name in names:
        path = root / name
        if path.suffix in (".html", ".csv", ".tex") and path.is_file() and not path.is_symlink():
            found[name] = path.read_bytes()[:PAGE_BYTES].decode(errors="surrogateescape")
    return found


# ---------------------------------------------------------------- a command


@dataclass(frozen=True)
class Limits:
    """Seconds of CPU that a command may take, and seconds after which it is taken to wait.

    The latter are far more than a busy machine may be late.
    """

    cpu_s: int = 15
    wait_s: float = 30.0


def run_case(case: Case, root: Path, limits: Limits) -> list[dict[str, Any]]:
    """Lay a case down, run its steps; an outcome for each."""
    lay_down(root, case)
    found = []
    for step in case.steps or ((),):
        before = snapshot(root)
        outcome = run_step(case, step, root, limits)
        for file in sorted((root / "tmp").glob("*.traceback")):  # where a defect is told of
            outcome["error"] = outcome["error"] or file.read_text(errors="replace")
            file.unlink()
        after = snapshot(root)
        outcome["pages"] = pages(root, [name for name in after if after[name] != before.get(name)])
        outcome["made"] = sorted(after.keys() - before.keys())[:20]
        outcome["changed"] = sorted(
            name for name in before.keys() & after.keys() if before[name] != after[name]
        )[:20]
        outcome["removed"] = sorted(before.keys() - after.keys())[:20]
        found.append(outcome)
    return found


def run_step(case: Case, step: tuple[str, ...], root: Path, limits: Limits) -> dict[str, Any]:
    """Run one command, or the case's call, in a process of its own."""
    with contextlib.ExitStack() as stack:
        stdout, stderr, trace, told = (
            stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)
        )
        pid = os.fork()
        if not pid:
            try:
                child(case, step, root, limits, (stdout, stderr, trace, told))
            finally:
                os._exit(99)
        status, used, waited = wait(pid, limits.wait_s)
        memory = used.ru_maxrss * 1024
        outcome: dict[str, Any] = {
            "step": list(step), "waited": waited, "memory": memory,
            "cpu_s": round(used.ru_utime + used.ru_stime, 2),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "stdout": text_of(stdout), "stderr": text_of(stderr), "trace": text_of(trace),
            "printed": max(os.fstat(stdout.fileno()).st_size, os.fstat(stderr.fileno()).st_size),
        }  # fmt: skip
        words = text_of(told)
        outcome |= json.loads(words) if words else {"code": None, "seen": [], "error": ""}
        return outcome


def text_of(file: Any) -> str:
    """What is in a file, its bytes as they are."""
    file.seek(0)
    data: bytes = file.read(SHOWN_BYTES)
    return data.decode(errors="surrogateescape")


def wait(pid: int, wait_s: float) -> tuple[int, resource.struct_rusage, bool]:
    """Wait for a process; the last value says that it had to be ended, as it waited itself.

    On a busy machine a process that computes may take long: one that waits takes no CPU.
    """
    waited, used_s = False, 0.0
    handle = os.pidfd_open(pid)
    try:
        while not select.select([handle], [], [], 5.0 if waited else wait_s)[0]:
            before_s, used_s = used_s, cpu_s(pid)
            if waited:
                os.kill(pid, signal.SIGKILL)
            elif used_s - before_s < 0.01 * wait_s:
                os.kill(pid, signal.SIGABRT)
                waited = True
        _, status, used = os.wait4(pid, 0)
        return status, used, waited
    finally:
        os.close(handle)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def child(
    case: Case, step: tuple[str, ...], root: Path, limits: Limits, files: tuple[Any, ...]
) -> None:
    """Become the command; ends the process."""
    stdout, stderr, trace, told = files
    os.setsid()
    bound(trace, limits.cpu_s)
    outcome: dict[str, Any] = {"code": 0, "error": "", "seen": WATCH.seen}

    def end() -> None:
        WATCH.is_on = False
        code = outcome["code"]
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BaseException as error:  # what the interpreter says at its end
            outcome["error"] = outcome["error"] or f"at exit: {type(error).__name__}: {error}"
            outcome["code"] = code = 120
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        told.write(json.dumps(outcome).encode())
        told.flush()
        os._exit(code if isinstance(code, int) else 1)

    streams(case.streams, stdout, stderr)
    settle(case, root)
    # Where the links of emulated sites have their sockets; only root's may make them.
    WATCH.inside = (*(f"{root}/{name}" for name in (WORK, HOME, "tmp")), "/run/discovery-xp",
                    *own_places(case))  # fmt: skip
    WATCH.ends_at_exec = end
    words = [each.replace("{work}", str(root / WORK)).replace("{home}", str(root / HOME))
             .replace("{outside}", str(root / "outside")) for each in step]  # fmt: skip
    sys.argv = ["discovery-xp", *words]
    WATCH.is_on = True
    try:
        outcome["code"] = run(case)
    except BaseException:
        outcome["error"] = shortened(traceback.format_exc())
    end()


def shortened(trace: str) -> str:
    """A traceback without most of its middle."""
    return trace if len(trace) < 16_000 else f"{trace[:10_000]}\n...\n{trace[-6_000:]}"


def own_places(case: Case) -> list[str]:
    """Folders that the case's environment names for testbeds; nobody may write there, either."""
    if "TMPDIR" in case.environment:  # Python tries other folders then
        return ["/tmp", "/var/tmp", "/usr/tmp", "/nowhere"]
    named = [case.environment.get(each) for each in ("DISCOVERY_XP_HOME", "XDG_STATE_HOME")]
    home = case.environment.get("HOME", "unchanged")
    # Without one, it is where the machine says that the user's is.
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    named.append(home or pwd.getpwuid(user).pw_dir)
    return [
        "/.local" if value == "/" else value for value in named if value and value.startswith("/")
    ]


def run(case: Case) -> int:
    """The command's exit code; 2 where a call was refused in our words."""
    try:
        if case.call is None:
            from discovery_xp.cli import main as cli

            cli.main()
        else:
            answer(case)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def answer(case: Case) -> None:
    """Hand a case to the reader of answers that it names; our errors end it as commands do."""
    from discovery_xp.errors import UserError
    from tests.fuzz.answers import PLANTED, TARGETS

    try:
        {**TARGETS, **PLANTED}[case.call or ""].take(case.told)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def bound(trace: Any, cpu_s: int) -> None:
    """Limits on what this process may take; where it is when it reaches them goes to `trace`."""
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGXCPU, trace, chain=True)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 2))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def streams(kind: str, stdout: Any, stderr: Any) -> None:
    """Have stdin, stdout and stderr lead where the case says."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(stderr.fileno(), 2)
    encoding, errors = "utf-8", "strict"
    out: io.TextIOWrapper | None = None
    if kind == "closed":
        os.close(1)
    elif kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    elif kind == "broken":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    else:
        os.dup2(stdout.fileno(), 1)
        if kind in ("ascii", "latin-1"):
            encoding = kind
    if kind != "closed":
        raw = io.FileIO(1, "w", closefd=False)
        out = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors)
    sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(  # type: ignore[misc]
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), encoding, "backslashreplace",
        line_buffering=True,
    )  # fmt: skip


def settle(case: Case, root: Path) -> None:
    """The command's folder, environment and user."""
    os.umask(0o022)
    os.chdir(root / WORK)
    environment: dict[str, str | None] = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": f"{root}/{HOME}", "LANG": "C.UTF-8",
        "TMPDIR": f"{root}/tmp", "MPLCONFIGDIR": os.environ["MPLCONFIGDIR"],
        "TERM": "xterm-256color", **case.environment,
    }  # fmt: skip
    os.environ.clear()
    for name, value in environment.items():
        if value is not None:
            os.environ[name] = (
                value.replace("{work}", str(root / WORK)).replace("{home}", str(root / HOME))
                .replace("{outside}", str(root / "outside"))
            )  # fmt: skip
    tempfile.tempdir = None
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


# ---------------------------------------------------------------- the worker


def load() -> None:
    """Load what commands load, so that it isn't loaded for each of them."""
    import matplotlib.font_manager
    import pyarrow.parquet

    from discovery_xp import bench, experiment
    from discovery_xp.analysis import report
    from discovery_xp.cli import main as cli
    from discovery_xp.providers import grid5000, local
    from tests.fuzz import answers

    del matplotlib, pyarrow, bench, cli, experiment, report, grid5000, local, answers


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder for the cases, and one for what matplotlib keeps."""
    with tempfile.TemporaryDirectory(prefix="xp-fuzz-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in ("matplotlib", "home"):
            (root / name).mkdir()
        os.environ["MPLCONFIGDIR"] = str(root / "matplotlib")
        os.environ["HOME"] = str(root / "home")  # where Ansible makes folders when it is loaded
        yield root


def main() -> None:
    """Answer cases until there are no more."""
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may get in between
    if os.geteuid() == 0:
        ctypes.CDLL(None, use_errno=True).unshare(0x40000000)  # CLONE_NEWNET
    with place() as root:
        load()
        sys.addaudithook(WATCH)
        gc.collect()
        gc.freeze()
        for number, line in enumerate(sys.stdin):
            own = root / f"{number}"
            try:
                told = json.loads(line)
                limits = Limits(**told["limits"])
                outcomes = run_case(case_from_json(told["case"]), own, limits)
            finally:
                shutil.rmtree(own, ignore_errors=True)
            answers.write(json.dumps(outcomes) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
