"""What platforms and their machines say: existing hosts, lent machines, Grid'5000's API."""

from __future__ import annotations

import json
import types
from typing import Any

from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import make_plan
from discovery_xp.providers import enoslib_machines, static
from discovery_xp.providers.grid5000 import api, jobs, nodes
from discovery_xp.testbeds.testbed import State, Testbed
from tests.fuzz.answers.common import Anything, quiet, say, saying, target, text


@target("static", {"": "0\n6.1.0-18-amd64\n"})
def take_static(told: Any) -> None:
    """Hosts that exist already say who logs in."""
    module: Anything = static
    module.run_each = saying(told)
    hosts = "[192.0.2.1, 192.0.2.2, 192.0.2.3]"
    topology = (
        f"name: fuzz\nsites: [{{name: a}}]\nprovider: {{type: static, hosts: {{a: {hosts}}}}}"
    )
    plan, testbed = make_plan(parse_topology(topology)), Testbed("fuzz")
    testbed.save(State(plan, "acquiring", "2026-11-24T16:00:00Z"))
    static.acquire(plan, testbed, quiet)


@target("address", "2: eth0    inet 192.168.42.5/24 brd 192.168.42.255 scope global eth0\n")
def take_address(told: Any) -> None:
    """The addresses that lent machines say they have."""
    say(enoslib_machines.address_in(text(told), None))
    say(enoslib_machines.address_in(text(told), "192.168.42.0/24"))


_JOB = {
    "uid": 1234567,
    "name": "discovery-xp-two",
    "state": "running",
    "types": ["deploy"],
    "walltime": 7200,
    "assigned_nodes": ["paravance-1.rennes.grid5000.fr", "paravance-2.rennes.grid5000.fr"],
    "started_at": 1_799_990_000,
    "scheduled_at": 1_799_990_000,
    "stopped_at": 0,
}


@target("job", _JOB)
def take_job(told: Any) -> None:
    """A job as the API describes it, as `status` prints it."""
    values = {str(key): each for key, each in told.items()} if isinstance(told, dict) else {}
    with api.plainly():
        job = jobs._job("rennes", types.SimpleNamespace(**values))
    say(job.in_words(1_800_000_000.0))
    say(f"{job.is_over} {job.ends_at}")


_REFUSAL = {
    "code": 400,
    "text": 'oarsub failed with status 5: {"stdout":"[ADMISSION RULE] x\\\\n# Set walltime\\\\n'
    'Reservation not valid: could run at 2027-03-01 19:00:00","stderr":"KO"}',
}


@target("refusal", _REFUSAL)
def take_refusal(told: Any) -> None:
    """What the API says when it refuses a reservation."""
    from enoslib.infra.enos_g5k import g5k_api_utils
    from grid5000.exceptions import Grid5000CreateError

    values = told if isinstance(told, dict) else {"text": told}
    code, words = values.get("code"), values.get("text", "")
    error = Grid5000CreateError(
        words if isinstance(words, str) else json.dumps(words),
        code if isinstance(code, int) else None,
    )

    def submit(_asked: Any) -> Any:
        raise error

    module: Anything = jobs
    g5k_api_utils.submit_jobs = submit
    module._end_what_was_made = lambda *_: None
    with api.plainly():
        jobs.submit([], "fuzz")


@target("nodes", ["paravance-2.rennes.grid5000.fr", "paravance-10.rennes.grid5000.fr", "x"])
def take_nodes(told: Any) -> None:
    """Names of nodes, in the order of their numbers."""
    names = [text(each) for each in told] if isinstance(told, list) else [text(told)]
    sorted(names, key=nodes.by_number)


@target("login", "username: alice\npassword: secret\n")
def take_login(told: Any) -> None:
    """The login file, which clients of the API read."""
    path = api.login_file()
    path.write_bytes(text(told).encode())
    module: Anything = api
    module.inside_g5k = lambda: False
    api.require_login()
