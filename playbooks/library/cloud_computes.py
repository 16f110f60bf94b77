#!/usr/bin/python
"""Wait until Nova's services can be asked, make flavors, map computes and group them by site."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_cloud import LOGIN, connect, plainly, wait_for

DOCUMENTATION = r"""
module: cloud_computes
short_description: Nova's services up, its computes mapped, aggregates as wanted
options:
  auth_url: {description: Keystone's URL., type: str, required: true}
  password: {description: admin's., type: str, required: true}
  region: {description: Whose API is asked., type: str, required: true}
  services: {description: "binary -> hosts where it must be up", type: dict, required: true}
  queues: {description: "queue of the message bus -> who must read it", type: dict, required: true}
  sites: {description: "site -> its compute hosts", type: dict, required: true}
  zones: {description: An aggregate and an availability zone a site., type: bool, required: true}
  flavors: {description: "name -> {vcpus, ram (MiB), disk (GiB)}", type: dict, required: true}
  discover: {description: Command that maps new computes., type: list, required: true}
  timeout_s: {description: For the services to be up., type: int, default: 300}
"""


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            **LOGIN,
            "region": {"type": "str", "required": True},
            "services": {"type": "dict", "required": True},
            "queues": {"type": "dict", "required": True},
            "sites": {"type": "dict", "required": True},
            "zones": {"type": "bool", "required": True},
            "flavors": {"type": "dict", "required": True},
            "discover": {"type": "list", "elements": "str", "required": True},
            "timeout_s": {"type": "int", "default": 300},
        }
    )
    with plainly(module):
        changes = run(module)
    module.exit_json(changed=bool(changes), changes=changes)


def run(module: AnsibleModule) -> list[str]:
    """All steps, in order; returns what was changed."""
    nova = connect(module, module.params["region"]).compute
    changes = []
    wait_for_services(module, nova)
    wait_for_listeners(module)
    known = {flavor.name for flavor in nova.flavors(details=False)}
    for name, sizes in module.params["flavors"].items():
        if name not in known:
            nova.create_flavor(name=name, **sizes)
            changes.append(f"flavor {name}")
    wanted = {host for hosts in module.params["sites"].values() for host in hosts}

    def unmapped() -> set[str]:
        return wanted - {node.name for node in nova.hypervisors(details=False)}

    if unmapped():
        discover(module)
        left = wait_for(
            module, lambda: set() if not unmapped() else None, 60,
            lambda: f"computes that Nova doesn't list: {', '.join(sorted(unmapped())[:5])}",
        )  # fmt: skip
        changes.append(f"computes mapped, {len(left)} left")
    changes += group_by_site(module, nova)
    return changes


def wait_for_services(module: AnsibleModule, nova: Any) -> None:
    """Every service that is to be there says that it is up."""
    wanted = {
        (binary, host) for binary, hosts in module.params["services"].items() for host in hosts
    }
    missing = set(wanted)

    def look() -> bool | None:
        up = {(each.binary, each.host) for each in nova.services() if each.state == "up"}
        missing.clear()
        missing.update(wanted - up)
        return None if missing else True

    def words() -> str:
        named = [f"{binary} on {host}" for binary, host in missing]
        return f"Nova doesn't call them up: {first_of(named)}"

    wait_for(module, look, module.params["timeout_s"], words)


def wait_for_listeners(module: AnsibleModule) -> None:
    """Every service listens on the message bus.

    One that lost it (RabbitMQ was started again) stays "up" for minutes, but its queue is gone
    until it has connected anew, and what is sent to it meanwhile, a VM to build, is lost.
    """
    wanted = module.params["queues"]
    deaf = dict(wanted)

    def look() -> bool | None:
        deaf.clear()
        deaf.update({queue: wanted[queue] for queue in wanted.keys() - listening()})
        return None if deaf else True

    def words() -> str:
        return f"they don't listen on the message bus: {first_of(deaf.values())}"

    wait_for(module, look, module.params["timeout_s"], words)


def first_of(names: Iterable[str]) -> str:
    """A few of many names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more


def listening() -> set[str]:
    """RabbitMQ's queues that somebody reads; none while it doesn't answer."""
    command = ["rabbitmqctl", "--quiet", "--formatter", "json", "--timeout", "30",
               "list_queues", "name", "consumers"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return set()
    return {each["name"] for each in json.loads(done.stdout) if each["consumers"]}


def discover(module: AnsibleModule) -> None:
    """Map computes that report to their cell's database."""
    done = subprocess.run(
        module.params["discover"], user="nova", group="nova", extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        module.fail_json(msg=f"computes can't be mapped: {' / '.join(words)}")


def group_by_site(module: AnsibleModule, nova: Any) -> list[str]:
    """An aggregate with a zone for each site, or none where computes are shared."""
    changes = []
    sites = module.params["sites"] if module.params["zones"] else {}
    known = {aggregate.name: aggregate for aggregate in nova.aggregates()}
    for name, aggregate in known.items():
        for host in aggregate.hosts or []:
            if host not in sites.get(name, []):
                nova.remove_host_from_aggregate(aggregate, host)
                changes.append(f"{host} out of {name}")
        if name not in sites and aggregate.availability_zone == name:
            nova.delete_aggregate(aggregate)
            changes.append(f"no aggregate {name}")
    for name, hosts in sites.items():
        aggregate = known.get(name)
        if aggregate is None:
            aggregate = nova.create_aggregate(name=name, availability_zone=name)
            changes.append(f"aggregate {name}")
        for host in hosts:
            if host not in (aggregate.hosts or []):
                nova.add_host_to_aggregate(aggregate, host)
                changes.append(f"{host} in {name}")
    return changes


if __name__ == "__main__":
    main()
