"""What Rally is told: a load host's task, and the cloud that it is for.  Pure."""

from __future__ import annotations

from typing import Any

from discovery_xp.deployment.variables import PlayVariables
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.load.shares import Share
from discovery_xp.onhost.wire.request import LoadRequest, RegionRequest

FOLDER = "/var/lib/discovery-xp/load"


def task(scenario: Scenario, share: Share, network: str, time_scale: float = 1.0) -> dict[str, Any]:
    """Return Rally's task file for a load host; its times are so many times the scenario's."""
    request = LoadRequest(
        kind=scenario.kind,
        regions=tuple(
            RegionRequest(region.name, region.site, count, warm_up, tuple(computes), placed)
            for region, count, warm_up, computes, placed in zip(
                share.regions,
                share.counts,
                share.warm_ups,
                share.computes,
                share.placed or ((),) * len(share.regions),
                strict=True,
            )
        ),
        concurrency=share.concurrency,
        clears=tuple(share.clears),
        iterations_before=share.iterations_before,
        flavor=scenario.flavor,
        image=scenario.image,
        network=network,
        poll_interval_s=scenario.poll_interval_s * time_scale,
        vm_timeout_s=scenario.vm_timeout_s * time_scale,
        run_timeout_s=scenario.run_timeout_s * time_scale,
        delete_after=scenario.delete_after is not False,
        reads=tuple(scenario.reads),
        repeats=scenario.repeats,
        records=f"{FOLDER}/records.jsonl",
        words=FOLDER,
        time_scale=time_scale,
    )
    return {
        "version": 2,
        "title": scenario.name,
        "description": scenario.description or scenario.kind,
        "subtasks": [
            {
                "title": scenario.kind,
                "scenario": {"Discovery.load": {"load": request.to_json()}},
                "runner": {"discovery": {}},
            }
        ],
    }


def environment_spec(variables: PlayVariables) -> dict[str, Any]:
    """Return Rally's description of the cloud; it holds passwords."""

    def user(name: str, password: str) -> dict[str, str]:
        return {
            "username": name,
            "password": password,
            "project_name": name,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    passwords, region = variables.secrets.passwords, variables.cloud.regions[0]
    return {
        "existing@openstack": {
            "auth_url": f"{region.urls['identity']}/v3",
            "region_name": region.name,
            "admin": user("admin", passwords["admin"]),
            "users": [user(variables.cloud.user, passwords["user"])],
        }
    }
