"""A VM at each site, booted through the API that serves the site, and deleted again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .connection import connect, wait_for


def boot(args: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    """Boot one VM on a compute of the site; returns what came of it.

    Where several could take it, one of the site's computes is named: in a shared pool any
    site's might be chosen otherwise.
    """
    from openstack.exceptions import SDKException

    site, computes = order["site"], order["computes"]
    result: dict[str, Any] = {"site": site, "region": order["region"], "status": "", "host": "",
                              "boot_duration_s": None, "message": ""}  # fmt: skip
    server = None
    cloud = connect(args, order["region"])
    try:
        nova = cloud.compute
        up = {each.host for each in nova.services(binary="nova-compute") if each.state == "up"}
        usable = [host for host in computes if host in up]
        if not usable:
            return {**result, "status": "NO COMPUTE", "message": f"no compute of {site} is up"}
        networks: Any = "none"
        if args["network"]:
            network = cloud.network.find_network(args["network"], ignore_missing=False)
            networks = [{"uuid": network.id}]
        started = time.monotonic()
        server = nova.create_server(
            name=f"smoke-{site}",
            flavor_id=nova.find_flavor(args["flavor"], ignore_missing=False).id,
            image_id=cloud.image.find_image(args["image"], ignore_missing=False).id,
            networks=networks,
            hypervisor_hostname=usable[0],
        )
        deadline = started + args["timeout_s"]
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
                    lambda: cloud.compute.find_server(server.id) is None or None,
                    args["timeout_s"] / 2,
                    lambda: f"the VM of {site} isn't deleted",
                )  # fmt: skip
            except SDKException as error:
                result["message"] += f" (not deleted: {str(error)[:200]})"
    return result


def boot_each(args: Mapping[str, Any]) -> dict[str, Any]:
    """Boot a VM at each site; `args` are the options of Ansible's module `smoke_boot`."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return {"boots": list(pool.map(lambda order: boot(args, order), args["boots"]))}
