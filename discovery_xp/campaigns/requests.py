"""A campaign's jobs as benches are asked for them: plans and requests."""

from __future__ import annotations

from pathlib import Path

from discovery_xp import store
from discovery_xp.bench_request import BenchRequest, check, choose_probes
from discovery_xp.boundary.names import TestbedName
from discovery_xp.campaigns.schedule import Job
from discovery_xp.inputs.campaign_values import Campaign
from discovery_xp.planning.plan import Plan, make_plan


def plan_of(campaign: Campaign, job: Job, testbed: TestbedName | None = None) -> Plan:
    """Return the plan of a job, on a testbed of the campaign's name or another."""
    return make_plan(job.point.topology, testbed or campaign.name, cloud=True)


def request_of(
    campaign: Campaign, job: Job, results: Path, attempt: int = 1, keep: bool = False
) -> BenchRequest:
    """Return what a bench is told for a job; `results` is the campaign's folder."""
    point = job.point
    return BenchRequest(
        scenario=point.scenario,
        topology_text=point.topology.to_yaml(),
        results=results,
        probes=choose_probes(campaign.probes),
        keep=keep,
        sample_every_s=campaign.sample_every_s,
        in_campaign=store.InCampaign(
            campaign=campaign.name,
            part=point.part,
            point=point.digest,
            levels=dict(point.levels),
            block=job.block,
            attempt=attempt,
        ),
    )


def check_all(campaign: Campaign, jobs: list[Job], results: Path) -> None:
    """Raise Refused, with the point's levels, where it is known that one can't be run."""
    seen: set[str] = set()
    for job in jobs:
        if job.point.digest in seen:
            continue
        seen.add(job.point.digest)
        check(plan_of(campaign, job), request_of(campaign, job, results))
