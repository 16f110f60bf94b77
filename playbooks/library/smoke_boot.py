#!/usr/bin/python
"""Boot a VM at every site, through the API that serves the site, and delete it again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_cloud import LOGIN, connect, wait_for

DOCUMENTATION = r"""
module: smoke_boot
short_description: One VM ACTIVE at each site, through its own API
options:
  auth_url: {description: Keystone's URL., type: str, required: true}
  password: {description: admin's., type: str, required: true}
  boots: {description: "[{site, region, computes}]", type: list, required: true}
  flavor: {description: Its name., type: str, required: true}
  image: {description: Its name., type: str, required: true}
  network: {description: Its name; empty for VMs without a NIC., type: str, required: true}
  timeout_s: {description: For a VM to be ACTIVE., type: int, default: 120}
"""


def boot(module: AnsibleModule, wanted: dict[str, Any]) -> dict[str, Any]:
    """Boot one VM on a compute of the site; returns what came of it.

    Where several could take it, one of the site's computes is named: in a shared pool any
    site's might be chosen otherwise.
    """
    from openstack.exceptions import SDKException

    site, computes = wanted["site"], wanted["computes"]
    result: dict[str, Any] = {"site": site, "region": wanted["region"], "status": "", "host": "",
                              "boot_duration_s": None, "message": ""}  # fmt: skip
    server = None
    cloud = connect(module, wanted["region"])
    try:
        nova = cloud.compute
        up = {each.host for each in nova.services(binary="nova-compute") if each.state == "up"}
        usable = [host for host in computes if host in up]
        if not usable:
            return {**result, "status": "NO COMPUTE", "message": f"no compute of {site} is up"}
        networks: Any = "none"
        if module.params["network"]:
            found = cloud.network.find_network(module.params["network"], ignore_missing=False)
            networks = [{"uuid": found.id}]
        started = time.monotonic()
        server = nova.create_server(
            name=f"smoke-{site}",
            flavor_id=nova.find_flavor(module.params["flavor"], ignore_missing=False).id,
            image_id=cloud.image.find_image(module.params["image"], ignore_missing=False).id,
            networks=networks,
            hypervisor_hostname=usable[0],
        )
        deadline = started + module.params["timeout_s"]
        while time.monotonic() < deadline:
            server = nova.get_server(server.id)
            if server.status in ("ACTIVE", "ERROR"):
                break
            time.sleep(0.5)
        result["status"] = server.status
        result["host"] = server.hypervisor_hostname or server.compute_host or ""
        if server.status == "ACTIVE":
            result["boot_duration_s"] = round(time.monotonic() - started, 2)
        else:
            fault = server.fault or {}
            result["message"] = str(fault.get("message", "not ACTIVE in time"))[:300]
    except SDKException as error:
        result["status"], result["message"] = "REFUSED", str(error)[:300]
    finally:
        if server is not None:
            try:
                cloud.compute.delete_server(server.id)
                wait_for(
                    module, lambda: cloud.compute.find_server(server.id) is None or None, 60,
                    lambda: f"the VM of {site} isn't deleted",
                )  # fmt: skip
            except SDKException as error:
                result["message"] += f" (not deleted: {str(error)[:200]})"
    return result


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            **LOGIN,
            "boots": {"type": "list", "elements": "dict", "required": True},
            "flavor": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "timeout_s": {"type": "int", "default": 120},
        }
    )
    with ThreadPoolExecutor(max_workers=8) as pool:
        boots = list(pool.map(lambda wanted: boot(module, wanted), module.params["boots"]))
    module.exit_json(changed=False, boots=boots)


if __name__ == "__main__":
    main()
