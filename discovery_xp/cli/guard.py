"""The edge of a command: where it prints to, and what becomes of what goes wrong.

Whatever happens, a command ends with one of the documented exit codes and, where it isn't
done, a line that says why.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import tempfile
import traceback
from types import FrameType
from typing import TextIO

import click

from discovery_xp import files
from discovery_xp.errors import Failed, UserError
from discovery_xp.text import printable

INTERRUPTED = 130
# As sysexits.h has it for what only the program's authors can mend.
DEFECT = 70

_LONGEST_LINE = 1000
# What the machine lacks: a disk's room, a right, a descriptor.
_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM, errno.EACCES, errno.EPERM,
}  # fmt: skip


def run(command: click.Command) -> int:
    """Run `command` with the process's arguments; returns its exit code."""
    open_streams()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        # A login that is closed: nothing may stay reserved.
        signal.signal(signal.SIGHUP, _interrupt)
    code = 0
    try:
        code = _code_of(command)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has seen enough
        _print_to_nowhere(sys.stdout)
        return 0
    except OSError as error:
        _print_to_nowhere(sys.stdout)
        if code:  # why is told already
            return code
        _say(f"the output can't be written: {error.strerror}; print it elsewhere")
        return Failed.exit_code


def open_streams() -> None:
    """Let every text be printed, and see that no file gets the number of a closed stream."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # Programs that we start would print into the next file that is opened.
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _code_of(command: click.Command) -> int:
    output = sys.stdout
    try:
        code = command.main(prog_name="discovery-xp", standalone_mode=False)
    except SystemExit as error:
        # Where its output's reader has gone, which is no failure, click puts another stream in
        # the output's place and ends so.
        code = 0 if sys.stdout is not output else error.code
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _interrupted()
    except click.ClickException as error:
        code = _misused(error)
    except UserError as error:
        for line in str(error).splitlines():
            _say(line)
        code = error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        code = _unexpected(error)
    return code if isinstance(code, int) else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupted() -> int:
    hints = {
        "up": "; the same command goes on from here, 'destroy' removes all",
        "deploy": "; the same command goes on from here, 'destroy' removes all",
        "bench": "; the same command starts another run",
    }
    _say(f"interrupted{hints.get(''.join(sys.argv[1:2]), '')}")
    return INTERRUPTED


def _misused(error: click.ClickException) -> int:
    """One line for what click says in several; help where a command was given nothing."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "discovery-xp"
        message = " ".join(error.format_message().split()).rstrip(".")
        _say(f"{_cut(message)}; see '{path} --help'")
    return error.exit_code


def _unexpected(error: Exception) -> int:
    """One line on what nobody thought of; a file has the rest."""
    full = files.no_room(error)
    if full is not None:
        _say(str(full))
        return full.exit_code
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        _say(f"{place}{error.strerror}; mend that, then run it again")
        return Failed.exit_code
    text = "".join(traceback.format_exception(error))
    words = _cut(f"{type(error).__name__}: {error}")
    try:
        descriptor, path = tempfile.mkstemp(prefix="discovery-xp-", suffix=".traceback", text=True)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        _say(f"a defect of discovery-xp: {words}; report it with {path}")
    except OSError:  # there is no room for a file
        _say(f"a defect of discovery-xp: {words}; report it with these lines")
        with contextlib.suppress(OSError):
            click.echo(text, err=True)
    return DEFECT


def _cut(words: str) -> str:
    words = printable(words[: _LONGEST_LINE + 1])
    return words if len(words) <= _LONGEST_LINE else f"{words[:_LONGEST_LINE]}..."


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # of a closed terminal
        click.echo(printable(line), err=True)


def _print_to_nowhere(stream: TextIO) -> None:
    """Lose what is left to print, so that Python's own end doesn't try it again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
