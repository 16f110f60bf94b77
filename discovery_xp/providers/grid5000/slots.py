"""When a reservation would fit: execo's planning of the clusters, as slots.

execo reads all jobs of the sites, those that wait included, and knows the days and hours of
the usage policy.  It would ask for a password at the terminal: it is given python-grid5000's
session instead.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp import files
from discovery_xp.errors import Refused
from discovery_xp.inputs.platforms import G5kProvider
from discovery_xp.places import cache
from discovery_xp.planning import oar
from discovery_xp.planning.oar import Request
from discovery_xp.providers.grid5000 import api

# A reservation has to be in the future once OAR reads it.
LEAD_S = 60
HORIZON_S = 28 * 24 * 3600


@dataclass(frozen=True)
class Slot:
    """A time at which everything could start, in seconds since 1970; `free` by cluster."""

    start: float
    free: dict[str, int]

    @property
    def date(self) -> str:
        """The start, as 'reservation' in a topology wants it."""
        return oar.paris(self.start)


def first(requests: Sequence[Request], provider: G5kProvider, after: float = 0.0) -> float | None:
    """The first start that all sites have, in seconds since 1970; none before `after`."""
    slots = find(requests, provider, most=1, after=after)
    return slots[0].start if slots else None


def find(
    requests: Sequence[Request],
    provider: G5kProvider,
    most: int,
    by_night: bool = False,
    after: float = 0.0,
) -> list[Slot]:
    """The first starts at which all requests fit, `most` of them.

    `by_night`, or job type 'night', leaves out what touches working days from 9:00 to 19:00.
    Raises Refused for a cluster that isn't there, or has too few nodes at any time.
    """
    needed = {name: nodes for one in requests for name, nodes in one.clusters.items()}
    with _execo() as planning:
        clusters = set(planning.get_g5k_clusters(queues=None))
        for name in needed:
            if name not in clusters:
                raise Refused(
                    f"Grid'5000 has no cluster '{name}'",
                    f"there are {', '.join(sorted(clusters)[:12])}, ...",
                )
        # From when the platform's description is there: that may have taken its time.
        now = max(after, time.time() + LEAD_S)
        calendar = planning.get_planning(
            elements=list(needed),
            vlan=False,
            out_of_chart=by_night or "night" in provider.job.types,
            starttime=int(now),
            endtime=int(now) + HORIZON_S,
            queues=None,
        )
        if not calendar:
            raise Refused("the sites' jobs can't be read", "try again later")
        missing = [one.site for one in requests if one.site not in calendar]
        if missing:
            raise Refused(f"the jobs of {missing[0]} can't be read", "try again later")
        limits = planning.compute_slots(calendar, provider.job.walltime_s)
    fitting = [
        Slot(float(start), {name: free.get(name, 0) for name in needed})
        for start, _, free in limits
        if all(free.get(name, 0) >= nodes for name, nodes in needed.items())
    ]
    if not fitting:
        _require_size(calendar, needed)
    return fitting[:most]


def _require_size(calendar: dict[str, Any], needed: dict[str, int]) -> None:
    for clusters in calendar.values():
        for name, hosts in clusters.items():
            if len(hosts) < needed.get(name, 0):
                raise Refused(
                    f"{name} has {len(hosts)} nodes that work, {needed[name]} are wanted",
                    "ask for less, or for another cluster",
                )


@contextlib.contextmanager
def _execo() -> Iterator[Any]:
    """execo's planning, with python-grid5000's session; quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is written for older Pythons
        try:
            with _plain_signals():
                planning: Any = importlib.import_module("execo_g5k.planning")
        except ImportError as error:
            raise Refused(f"execo can't be loaded: {error}", "install it") from None
        utils: Any = importlib.import_module("execo_g5k.api_utils")
        client = api.client()
        logging.getLogger("execo").setLevel(logging.CRITICAL)
        # With psycopg2 at hand it would go to the sites' databases, through tunnels.
        planning._retrieve_method = "API"
        utils._g5k_api, utils._data = _Connection(client), None
        try:
            # The description of the whole platform is large, and rarely changes.
            utils._data = utils.get_api_data(cache_dir=f"{_cache_folder()}/")
            yield planning
        except utils.APIException as error:
            raise Refused(
                f"Grid'5000's API: {' '.join(str(error).split())[:200]}", "try again later"
            ) from None
        finally:
            utils._data = None


def _cache_folder() -> Path:
    """execo's own cache; raises Refused where others could write what it reads back."""
    folder = cache() / "grid5000"
    files.make_folder(folder)
    files.require_ours(folder, "choose another place with DISCOVERY_XP_CACHE")
    files.make_private(folder)
    return folder


@contextlib.contextmanager
def _plain_signals() -> Iterator[None]:
    """What is forked meanwhile dies of SIGTERM, and doesn't run our handlers.

    execo forks a helper when it is loaded, which ends itself so when we have ended.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in handlers:
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Connection:
    """execo's way to the API, with python-grid5000's session: same login, same limits."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def get(self, path: str) -> Any:
        """What execo reads has `json()`."""
        return self.client.http_request("get", f"/{path.lstrip('/')}")
