"""What a plan is refused for, though each of its topology's values is well-formed."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping

from discovery_xp.errors import Refused
from discovery_xp.inputs.platforms import Job
from discovery_xp.inputs.topology import Link
from discovery_xp.inputs.topology_file import MAX_TIME_SCALE
from discovery_xp.planning.kernel import own_networks

# How long it takes at least, on machines that others lend by the hour, until they are there,
# and until a cloud is on them; estimates.
LENDING_S = 15 * 60
CLOUD_S = 25 * 60
# Of the pings between two sites so many must come back, or no measuring would see them.
LEAST_ANSWERED_PERCENT = 1.0
# TCP sends its first packet anew when nothing has come back for so long (RFC 6298).
FIRST_TCP_TIMEOUT_MS = 1000.0
# Whose hosts' time is ours to scale.
SCALABLE = ("local", "dummy")


def needed_s(cloud: bool) -> int:
    """The shortest walltime in which a testbed can be had, in seconds: see docs/grid5000.md."""
    return LENDING_S + (CLOUD_S if cloud else 0)


def require_walltime(name: str, job: Job, cloud: bool) -> None:
    """Raise Refused for a walltime in which the testbed can't be had."""
    needed = needed_s(cloud)
    if job.walltime_s < needed:
        raise Refused(
            f"'{name}' has a walltime of {job.walltime}, but the nodes"
            f"{' and their cloud take' if cloud else ' take'} about {needed // 60} minutes",
            f"write e.g. 'walltime: \"{_longer(needed)}\"'",
        )


def _longer(seconds: int) -> str:
    """Twice as long, in whole half hours."""
    halves = -(-2 * seconds // 1800)
    return f"{halves // 2:02}:{30 * (halves % 2):02}:00"


def answered_share(there: Link, back: Link) -> float:
    """Of the pings through two links, the share that comes back: 0 to 1."""
    return (1 - there.loss_percent / 100) * (1 - back.loss_percent / 100)


def require_measurable(links: Mapping[tuple[str, str], Link]) -> None:
    """Raise Refused for a pair of sites between which hardly a ping comes back."""
    for (source, target), there in links.items():
        back = links.get((target, source), Link())
        if answered_share(there, back) * 100 < LEAST_ANSWERED_PERCENT:
            raise Refused(
                f"{source} - {target}: a loss of {there.loss_percent:g} % there and "
                f"{back.loss_percent:g} % back lets less than {LEAST_ANSWERED_PERCENT:g} % of "
                "the pings return, so the link can't be measured",
                "write at most '90%' each way",
            )


def require_free_network(network: str | None) -> None:
    """Raise Refused where the addresses of emulated hosts meet a network of this machine."""
    if network is None:
        return
    planned = ipaddress.IPv4Network(network)
    for device, own in own_networks():
        if own.overlaps(planned):
            raise Refused(
                f"the network {planned} meets this machine's own {own} ({device})",
                "choose another with 'provider: {type: local, network: 10.N.0.0/16}'",
            )


def require_scalable(
    name: str, provider: str, time_scale: float, links: Mapping[tuple[str, str], Link]
) -> None:
    """Raise Refused where time can't be scaled: on real machines, or beyond TCP's first timeout."""
    if not 1 <= time_scale <= MAX_TIME_SCALE:  # a command line's; not a number, too
        raise Refused(
            f"a time scale of {time_scale:g} is out of range", f"write 1 to {MAX_TIME_SCALE}"
        )
    if time_scale == 1:
        return
    if provider not in SCALABLE:
        raise Refused(
            f"'{name}' has a time scale of {time_scale:g}, but the machines of provider "
            f"'{provider}' keep their own time",
            "leave time_scale out, or write 'provider: local'",
        )
    require_before_tcp_timeout(time_scale, links)


def require_before_tcp_timeout(time_scale: float, links: Mapping[tuple[str, str], Link]) -> None:
    """Raise Refused where a scaled round trip would have TCP send its first packets twice."""
    if time_scale == 1 or not links:
        return
    round_trips = {ends: longest_rtt_ms(there, links.get(ends[::-1], Link()))
                   for ends, there in links.items()}  # fmt: skip
    (source, target), rtt_ms = max(round_trips.items(), key=lambda entry: entry[1])
    if time_scale * rtt_ms < FIRST_TCP_TIMEOUT_MS:
        return
    # The largest of one decimal that stays below.
    largest = math.ceil(FIRST_TCP_TIMEOUT_MS / rtt_ms * 10 - 1 - 1e-9) / 10
    raise Refused(
        f"{source} - {target}: a round trip of {rtt_ms:g} ms at a time scale of {time_scale:g} "
        f"takes {time_scale * rtt_ms / 1000:g} s, and TCP sends anew after "
        f"{FIRST_TCP_TIMEOUT_MS / 1000:g} s",
        f"write a time scale of at most {largest:g}" if largest >= 1 else "leave time_scale out",
    )


def longest_rtt_ms(there: Link, back: Link) -> float:
    """Return the longest round trip that two links make, jitter included, in ms."""
    return sum(link.delay_ms + link.jitter_ms for link in (there, back))
