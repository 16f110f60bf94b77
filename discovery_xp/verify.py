"""One verification, from a cloud to a stored result, in order.

1. deploy the cloud (`experiment.deploy_cloud`), or take one that is up;
2. open the run's folder, so that a run that dies is found: plan, topology, deployment, links;
3. put Tempest on the master, unless it is there;
4. run the tests, whose verdicts are stored as they come;
5. close the record: complete, or partial with the reason;
6. destroy what was deployed for it, unless it is to be kept.

Whatever goes wrong after step 2 leaves a partial run that can be reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp import ending, experiment, software, store, verification
from discovery_xp.bench import destroyed_unless_kept
from discovery_xp.deployment import description
from discovery_xp.deployment.variables import PlayVariables, play_variables
from discovery_xp.errors import Failed, Refused, UserError
from discovery_xp.experiment import DeployedCloud
from discovery_xp.planning.plan import Plan
from discovery_xp.provenance import record_of
from discovery_xp.store import Run
from discovery_xp.testbeds.hosts import Hosts, Progress, Stopwatch
from discovery_xp.testbeds.pings import PairRtt
from discovery_xp.testbeds.testbed import Testbed, now
from discovery_xp.verification import Verification, Wish
from discovery_xp.verification.configuration import CloudUnderTest, cloud_under_test


@dataclass(frozen=True)
class VerifyRequest:
    """What a verification is asked for, besides the cloud.

    `region` is the one whose APIs are asked, the cloud's first where that is None.
    """

    wish: Wish
    results: Path
    region: str | None = None
    keep: bool = False
    expose: bool = False
    topology_text: str | None = None


def check(plan: Plan, request: VerifyRequest) -> None:
    """Raise Refused where it is known beforehand that it can't be done or stored."""
    layout = plan.require_cloud()
    names = [region.name for region in layout.regions]
    if request.region is not None and request.region not in names:
        raise Refused(
            f"--region: the cloud has no region '{request.region}'", f"it has {', '.join(names)}"
        )
    store.require_writable(request.results / plan.name)


def run(
    plan: Plan, request: VerifyRequest, progress: Progress, opened: Callable[[Run], None]
) -> Run:
    """Deploy a plan's cloud and take all the steps, as the module's docstring numbers them.

    `opened` gets the run's folder early.  Raises Refused before anything is touched, as `check`
    does; Failed, after the run was closed as partial, when the tests couldn't be run.
    """
    check(plan, request)
    testbed, stopwatch = Testbed(plan.name), Stopwatch(progress)
    with destroyed_unless_kept(testbed, request.keep, stopwatch):
        deployed = experiment.deploy_cloud(plan, stopwatch, request.keep, request.expose)
        with testbed.locked():
            return _verify(deployed, request, stopwatch, opened)


def run_there(
    testbed: Testbed, request: VerifyRequest, progress: Progress, opened: Callable[[Run], None]
) -> Run:
    """Take steps 2 to 5 on a cloud that is up, which stays as it is."""
    check(testbed.load().plan, request)
    with testbed.locked():
        return _verify(_cloud_of(testbed), request, Stopwatch(progress), opened)


def _cloud_of(testbed: Testbed) -> DeployedCloud:
    """Return the cloud that was deployed last; raises Refused where there is none that is up."""
    state = testbed.load()
    deployment = description.load(testbed)
    if state.deployed is None or state.phase != "up":
        raise Refused(
            f"the cloud of '{testbed.name}' isn't whole", "'discovery-xp deploy' again finishes it"
        )
    fields = {each.name for each in dataclasses.fields(PairRtt)}
    pairs = [
        PairRtt(**{key: value for key, value in pair.items() if key in fields})
        for pair in state.observed
    ]
    return DeployedCloud(testbed, state, deployment, pairs, [])


# ---------------------------------------------------------------- the steps


def _verify(
    deployed: DeployedCloud,
    request: VerifyRequest,
    progress: Stopwatch,
    opened: Callable[[Run], None],
) -> Run:
    testbed = deployed.testbed
    hosts = experiment.hosts_of(testbed)
    variables = play_variables(hosts, testbed)
    cloud = cloud_under_test(variables, request.region)
    run = _open_run(hosts, deployed, request, cloud)
    opened(run)
    with _closed(run, testbed, progress) as ending_of:
        verification.install(hosts, variables, progress)
        ending_of.result = _run_tests(run, hosts, testbed, variables, request, cloud, progress)
    return run


def _open_run(
    hosts: Hosts, deployed: DeployedCloud, request: VerifyRequest, cloud: CloudUnderTest
) -> Run:
    """Make the run's folder and store what it begins with."""
    record = record_of(hosts, deployed, _scenario(request, cloud))
    tempest = software.TEMPEST.locked_versions["tempest"]
    record = dataclasses.replace(record, versions={**record.versions, "tempest": tempest})
    run = store.new_run(request.results, record)
    run.keep_room()
    run.write_json("plan.json", deployed.state.plan.to_json())
    run.write_json("deployment.json", deployed.deployment.to_json())
    before = [pair.to_json() for pair in deployed.pairs]
    run.write_json("links.json", {"before": before, "after": []})
    if request.topology_text is not None:
        run.write_text("topology.yaml", request.topology_text)
    return run


def _scenario(request: VerifyRequest, cloud: CloudUnderTest) -> Mapping[str, Any]:
    """Return run.json's `scenario` of a verification: what was asked for."""
    wish = request.wish
    return {
        "name": "verify",
        "kind": store.VERIFY,
        "services": list(wish.services),
        "regex": wish.regex,
        "region": cloud.region.name,
        "concurrency": wish.concurrency,
        "run_timeout_s": wish.longest_s,
    }


def _run_tests(
    run: Run,
    hosts: Hosts,
    testbed: Testbed,
    variables: PlayVariables,
    request: VerifyRequest,
    cloud: CloudUnderTest,
    progress: Progress,
) -> Verification:
    """Run the tests; their verdicts are stored as they come."""
    result = verification.run(
        hosts, testbed, variables, request.wish, cloud,
        lambda rows: run.append("verdicts", rows), progress,
    )  # fmt: skip
    # Tests that failed and were run again have one row.
    run.write_table("verdicts", result.rows)
    run.update(window=store.Window(*result.window), notes=(*run.load().notes, *result.notes))
    return result


@dataclass
class _Ending:
    """What the tests came to, None until they have ended."""

    result: Verification | None = None


@contextlib.contextmanager
def _closed(run: Run, testbed: Testbed, progress: Stopwatch) -> Iterator[_Ending]:
    """Close the record, whatever happens: as complete, or as partial with the reason."""
    reached = _Ending()
    reason: str | None = None
    try:
        yield reached
        reason = reached.result.reason if reached.result else "no test was run"
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    except UserError as error:
        error = ending.explained(testbed, error)
        reason = str(error).splitlines()[0]
        raise error from None
    except OSError as error:
        reason = f"it couldn't be stored: {error.strerror or error}"
        raise Failed(
            f"the run can't be stored: {error.strerror or error}",
            f"what was found is in {run.folder}; free some disk, then run it again",
        ) from None
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        progress.stop()
        _close(run, reason, progress.stages_s)


def _close(run: Run, reason: str | None, stages_s: Mapping[str, float]) -> None:
    """Write a run's last word."""
    run.free_room()  # on a full disk there is nothing else for the last word
    with contextlib.suppress(OSError):  # its parts stay, and are read as well
        run.merge()
    run.update(
        ended=now(),
        status="complete" if reason is None else "partial",
        reason=reason,
        stages_s=dict(stages_s),
    )
