#!/usr/bin/python
"""Wait until Nova's services can be asked, make flavors, map computes and group them by site."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud import computes
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: cloud_computes
short_description: Nova's services up, its computes mapped, aggregates as wanted
options:
  auth_url: {description: Keystone's URL., type: str, required: true}
  password: {description: admin's., type: str, required: true}
  region: {description: Whose API is asked., type: str, required: true}
  services: {description: "binary -> hosts where it must be up", type: dict, required: true}
  queues:
    description: "queue of this host's message bus -> who must read it"
    type: dict
    required: true
  sites: {description: "site -> its compute hosts", type: dict, required: true}
  zones: {description: An aggregate and an availability zone a site., type: bool, required: true}
  flavors: {description: "name -> {vcpus, ram (MiB), disk (GiB)}", type: dict, required: true}
  discover: {description: Command that maps new computes., type: list, required: true}
  timeout_s: {description: For the services to be up., type: int, default: 300}
"""


def main() -> None:
    """Ready the computes, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "auth_url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
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
    answer(module, computes.ready)


if __name__ == "__main__":
    main()
