"""Commands on many hosts at once, by Ansible over ssh, through EnOSlib.

EnOSlib writes its temporary playbooks to the working directory and prints as it
goes; both are held back here, in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from discovery_xp.testbeds import ansible_runs  # it comes before EnOSlib

# isort: split
import enoslib as en
from ansible.errors import AnsibleError
from enoslib.errors import EnosFailedHostsError, EnosUnreachableHostsError

from discovery_xp import coroutines
from discovery_xp.boundary.answers import printable
from discovery_xp.errors import Failed
from discovery_xp.onhost.catalogue import SSH_PORT
from discovery_xp.planning.plan import PlannedHost
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import Testbed
from discovery_xp.testbeds.transport import Output

FORKS = 30
# A gateway drops connections beyond some that haven't logged in yet.
JUMPS_AT_ONCE = 8
# Of a failed task's output only the end is looked at.
LAST_WORDS_FROM = 10_000


@contextlib.contextmanager
def quietly(testbed: str, output: str = "noop", forks: int = FORKS) -> Iterator[Path]:
    """Run EnOSlib in a directory of its own, its output left to the callback `output`.

    The directory lies in the testbed's folder, so that what a killed run leaves goes with
    that; so do Ansible's own temporary files.
    """
    # It logs what it raises, too.
    logging.getLogger("enoslib").setLevel(logging.CRITICAL)
    with (
        ansible_runs.workspace(Testbed(testbed).folder) as folder,
        en.config_context(ansible_stdout=output, ansible_forks=forks),
    ):
        yield folder


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Turn EnOSlib's errors about hosts into ours."""
    try:
        yield
    except EnosUnreachableHostsError as error:
        raise Failed(
            unreachable(error),
            "see 'discovery-xp status'; 'discovery-xp up' repairs emulated hosts",
        ) from None
    except EnosFailedHostsError as error:
        first = error.hosts[0]
        raise Failed(
            f"{some(sorted({host.host for host in error.hosts}))}: "
            f"'{first.task}' failed: {last_words(first.payload)}",
            "see the host's journal with 'discovery-xp ssh HOST journalctl'",
        ) from None
    except AnsibleError as error:
        raise ansible_failed(error) from None


def unreachable(error: EnosUnreachableHostsError) -> str:
    """Say which hosts can't be reached, and the last of what ssh said of the first of them."""
    hosts = sorted(error.hosts, key=lambda host: str(host.host))
    said = str(getattr(hosts[0], "payload", {}).get("msg", "")).split("\n")
    words = [line.strip() for line in said if line.strip()]
    reason = f" ({printable(words[-1])[:200]})" if words else ""
    return f"{some(sorted({host.host for host in hosts}))} can't be reached over ssh{reason}"


def ansible_failed(error: AnsibleError) -> Failed:
    """Turn what Ansible itself raises, such as for a play that it can't template, into ours."""
    return Failed(
        f"Ansible stopped: {printable(' '.join(str(error).split()))[:300]}",
        "see the testbed's ansible.log",
    )


def run_each(hosts: Hosts, commands: Mapping[str, str]) -> dict[str, Output]:
    """Run each host's own command, a line of sh, on all of them at once.

    Returns the output by host, whatever its exit code.  Raises Failed, naming them,
    when hosts can't be reached.
    """
    if not commands:
        return {}
    if hosts.transport is not None:
        return hosts.transport.run_each(hosts.plan, commands)
    by_name = hosts.by_name()
    chosen = en.Roles(all=[by_name[name] for name in commands])
    with (
        plainly(),
        quietly(hosts.plan.name),
        en.actions(
            roles=chosen,
            extra_vars={"own_command": ansible_runs.literal(dict(commands))},
            gather_facts=False,
        ) as play,
    ):
        play.raw(
            "{{ own_command[inventory_hostname] }}",
            task_name="run",
            ignore_errors=True,
        )
        results = play.results
    return {result.host: output_of(result.payload) for result in results}


def output_of(payload: Mapping[str, Any]) -> Output:
    """What Ansible's result of a command says; it is the host's word, of whatever type."""
    if "rc" not in payload and "msg" in payload:  # Ansible gave it up, and says why
        return Output(1, "", last_words(payload))
    code = payload.get("rc", 0)
    stdout, stderr = payload.get("stdout", ""), payload.get("stderr", "")
    return Output(
        code if isinstance(code, int) else 1,
        stdout if isinstance(stdout, str) else "",
        stderr if isinstance(stderr, str) else "",
    )


def answering(
    hosts: Sequence[PlannedHost], ssh_config: Path | None = None, timeout_s: float = 5.0
) -> set[str]:
    """Names of the hosts whose sshd greets us.

    `ssh_config` is the testbed's, for those that are reached through another host.
    """

    async def look() -> set[str]:
        places, at_the_door = asyncio.Semaphore(128), asyncio.Semaphore(JUMPS_AT_ONCE)

        async def one(host: PlannedHost) -> str | None:
            if host.ssh is not None and host.ssh.jump and ssh_config is not None:
                async with at_the_door:
                    greets = await _greets_behind(host, host.ssh.jump, ssh_config, 4 * timeout_s)
            else:
                async with places:
                    greets = await ssh_answers(host, timeout_s)
            return host.name if greets else None

        return {name for name in await asyncio.gather(*map(one, hosts)) if name}

    return coroutines.run(look())


def answering_of(hosts: Hosts) -> set[str]:
    """Names of those hosts of a testbed whose sshd greets us."""
    if hosts.transport is not None:
        return hosts.transport.answering(hosts.plan)
    return answering(hosts.plan.hosts, Testbed(hosts.plan.name).ssh_config)


async def ssh_answers(host: PlannedHost, timeout_s: float) -> bool:
    """True when the host's sshd greets us within `timeout_s`."""
    writer = None
    port = host.ssh.port if host.ssh else SSH_PORT
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host.address, port)
            return (await reader.read(4)) == b"SSH-"
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def _greets_behind(host: PlannedHost, jump: str, ssh_config: Path, timeout_s: float) -> bool:
    """The same of a host that only `jump` reaches."""
    port = host.ssh.port if host.ssh else SSH_PORT
    process = await asyncio.create_subprocess_exec(
        "ssh", "-F", str(ssh_config), "-o", "BatchMode=yes", "-W", f"{host.address}:{port}", jump,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(timeout_s):
            return (await process.stdout.read(4)) == b"SSH-"
    except TimeoutError:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def some(names: list[str]) -> str:
    """The first few of many names."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def last_words(payload: Mapping[str, Any]) -> str:
    """What a failed task said last; of a loop, what its first failed item said.

    Hosts say it: it may be of any type, and hold control characters.
    """
    results = payload.get("results", [])
    items = [
        item
        for item in (results if isinstance(results, list) else [])
        if isinstance(item, Mapping) and item.get("failed")
    ]
    output = items[0] if items else payload
    text = str(
        output.get("module_stderr")
        or output.get("stderr")
        or output.get("stdout")
        or output.get("msg")
        or output
    )
    lines = [line.strip() for line in text[-LAST_WORDS_FROM:].splitlines() if line.strip()]
    return printable(" / ".join(lines[-2:])[:300]) if lines else "no message"
