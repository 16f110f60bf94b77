"""Nova's computes: waited for, mapped to their cell, grouped by site; and the flavors of VMs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..process import Failure, changed
from .connection import connect, plainly, wait_for


def ready(args: Mapping[str, Any]) -> dict[str, Any]:
    """Wait for Nova's services, make flavors, map computes and group them by site.

    `args` are the options of Ansible's module `cloud_computes`.
    """
    with plainly():
        nova = connect(args, args["region"]).compute
        wait_for_services(args, nova)
        wait_for_listeners(args)
        changes = [
            *make_flavors(nova, args["flavors"]),
            *map_computes(args, nova),
            *group_by_site(nova, args["sites"] if args["zones"] else {}),
        ]
    return changed(changes)


def listened_to(args: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until the queues of this host's message bus have their readers.

    `args` are the options of Ansible's module `cloud_listeners`.
    """
    wait_for_listeners(args)
    return changed([])


def make_flavors(nova: Any, flavors: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Create the flavors that are missing; returns what was changed."""
    changes = []
    present = {flavor.name for flavor in nova.flavors(details=False)}
    for name, sizes in flavors.items():
        if name not in present:
            nova.create_flavor(name=name, **sizes)
            changes.append(f"flavor {name}")
    return changes


def map_computes(args: Mapping[str, Any], nova: Any) -> list[str]:
    """Map the computes that no cell has yet; returns what was changed."""
    hosts = {host for names in args["sites"].values() for host in names}

    def unmapped() -> set[str]:
        return hosts - {node.name for node in nova.hypervisors(details=False)}

    if not unmapped():
        return []
    discover(args["discover"])
    wait_for(
        lambda: True if not unmapped() else None, 60,
        lambda: f"computes that Nova doesn't list: {', '.join(sorted(unmapped())[:5])}",
    )  # fmt: skip
    return ["computes mapped, 0 left"]


def wait_for_services(args: Mapping[str, Any], nova: Any) -> None:
    """Wait until every service that is to be there says that it is up."""
    services = {(binary, host) for binary, hosts in args["services"].items() for host in hosts}
    missing = set(services)

    def poll() -> bool | None:
        up = {(each.binary, each.host) for each in nova.services() if each.state == "up"}
        missing.clear()
        missing.update(services - up)
        return None if missing else True

    def words() -> str:
        named = [f"{binary} on {host}" for binary, host in missing]
        return f"Nova doesn't call them up: {first_of(named)}"

    wait_for(poll, args["timeout_s"], words)


def wait_for_listeners(args: Mapping[str, Any]) -> None:
    """Wait until every service listens on the message bus.

    One that lost it (RabbitMQ was started again) stays "up" for minutes, but its queue is gone
    until it has connected anew, and what is sent to it meanwhile, a VM to build, is lost.
    """
    readers = args["queues"]
    deaf = dict(readers)

    def poll() -> bool | None:
        deaf.clear()
        deaf.update({queue: readers[queue] for queue in readers.keys() - listening()})
        return None if deaf else True

    def words() -> str:
        return f"they don't listen on the message bus: {first_of(deaf.values())}"

    wait_for(poll, args["timeout_s"], words)


def first_of(names: Iterable[str]) -> str:
    """Return a few of many names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more


def listening() -> set[str]:
    """Return RabbitMQ's queues that somebody reads; none while it doesn't answer."""
    command = ["rabbitmqctl", "--quiet", "--formatter", "json", "--timeout", "30",
               "list_queues", "name", "consumers"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return set()
    return {each["name"] for each in json.loads(done.stdout) if each["consumers"]}


def discover(command: Sequence[str]) -> None:
    """Map the computes that report to their cell's database, by Nova's own command."""
    done = subprocess.run(
        command, user="nova", group="nova", extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Failure(f"computes can't be mapped: {' / '.join(words)}")


def group_by_site(nova: Any, sites: Mapping[str, Sequence[str]]) -> list[str]:
    """Have an aggregate with a zone for each of `sites`, and no other; returns the changes."""
    changes = []
    aggregates = {aggregate.name: aggregate for aggregate in nova.aggregates()}
    for name, aggregate in aggregates.items():
        for host in aggregate.hosts or []:
            if host not in sites.get(name, []):
                nova.remove_host_from_aggregate(aggregate, host)
                changes.append(f"{host} out of {name}")
        if name not in sites and aggregate.availability_zone == name:
            nova.delete_aggregate(aggregate)
            changes.append(f"no aggregate {name}")
    for name, hosts in sites.items():
        aggregate = aggregates.get(name)
        if aggregate is None:
            aggregate = nova.create_aggregate(name=name, availability_zone=name)
            changes.append(f"aggregate {name}")
        for host in hosts:
            if host not in (aggregate.hosts or []):
                nova.add_host_to_aggregate(aggregate, host)
                changes.append(f"{host} in {name}")
    return changes
