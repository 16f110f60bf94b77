"""OpenStack's SDK on a host: a connection for each region, waiting, plain failures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .. import catalogue
from ..process import Failure

T = TypeVar("T")
POLL_S = 0.5


def connect(args: Mapping[str, Any], region: str) -> Any:
    """Return admin's connection, whose calls go to the endpoints of `region`.

    `args` holds `auth_url` and admin's `password`.
    """
    import openstack

    return openstack.connect(
        auth_url=args["auth_url"],
        username="admin",
        password=args["password"],
        project_name="admin",
        user_domain_name="Default",
        project_domain_name="Default",
        region_name=region,
        compute_default_microversion=catalogue.COMPUTE_MICROVERSION,
        app_name="discovery-xp",
        load_yaml_config=False,
        load_envvars=False,
    )


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Turn what the APIs refuse into a Failure with their words."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    try:
        yield
    except (ClientException, SDKException) as error:
        raise Failure(str(error)[:500]) from None


def wait_for(poll: Callable[[], T | None], limit_s: float, complaint: Callable[[], str]) -> T:
    """Poll until there is something; raises Failure with `complaint` after `limit_s`.

    An API that can't be reached yet counts as nothing.
    """
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    deadline = time.monotonic() + limit_s
    while True:
        words = ""
        try:
            result = poll()
            if result is not None:
                return result
        except (ClientException, SDKException) as error:
            words = f" ({str(error)[:200]})"
        if time.monotonic() > deadline:
            raise Failure(complaint() + words)
        time.sleep(POLL_S)
