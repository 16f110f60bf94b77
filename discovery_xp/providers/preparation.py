"""What is fetched and built once before the hosts of a plan can be had.

Wheels for the clouds of all hosts, and for emulated ones the root tree.  Times are those of
two processors and a quick line.
"""

from __future__ import annotations

import os

from discovery_xp import software
from discovery_xp.planning.plan import Plan
from discovery_xp.providers.kinds import KINDS
from discovery_xp.providers.local import cgroups, image, machine
from discovery_xp.providers.local.recipes import Recipe, recipe_of
from discovery_xp.testbeds.hosts import Progress
from discovery_xp.testbeds.testbed import Testbed

FETCH_S = 60.0
BOOTSTRAP_S = {False: 30.0, True: 75.0}  # without and with OpenStack's Debian packages
INSTALL_S = 50.0
LAYER_S = 5.0  # to take MariaDB out again


def needed_s(plan: Plan) -> float:
    """Return about how long the preparation takes, in seconds; 0 where all is cached."""
    if KINDS[plan.provider].is_canned:
        return 0.0
    openstack = plan.cloud is not None
    fetch_s = FETCH_S if openstack and software.missing_wheels() else 0.0
    if not KINDS[plan.provider].is_local:
        return fetch_s
    recipe = recipe_of(plan)
    if image.is_cached(recipe):
        return 0.0
    if recipe is Recipe.CLOUD_WITHOUT_MARIADB and image.is_cached(Recipe.CLOUD):
        return LAYER_S
    return max(fetch_s, BOOTSTRAP_S[openstack]) + (INSTALL_S if openstack else 0.0)


def prepare(plan: Plan, progress: Progress) -> None:
    """Fetch and build what is missing; raises Refused or Failed as making the hosts would."""
    if KINDS[plan.provider].is_canned:
        return
    openstack = plan.cloud is not None
    if not KINDS[plan.provider].is_local:
        if openstack and software.missing_wheels():
            progress("fetching OpenStack's and Rally's packages (once for each lock file)", 0, 0)
            software.ensure_all_wheels()
        return
    recipe = recipe_of(plan)
    machine.check(plan, hosts_to_start=0, image_is_cached=image.is_cached(recipe))
    # Not the plan's testbed: that may be made meanwhile, and waits for the tree then.
    builder = Testbed(f"prepare-{os.getpid()}")
    try:
        image.ensure(builder, recipe, progress)
    finally:
        cgroups.kill(builder.name)
