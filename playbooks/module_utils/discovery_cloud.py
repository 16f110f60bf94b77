"""OpenStack's SDK on the hosts: a connection for each region, waiting, plain failures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ansible.module_utils.basic import AnsibleModule

T = TypeVar("T")
POLL_S = 0.5

LOGIN = {
    "auth_url": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}


def connect(
    module: AnsibleModule,
    region: str,
    project: str = "admin",
    user: str = "admin",
    password: str | None = None,
) -> Any:
    """A connection whose calls go to the endpoints of `region`."""
    import openstack

    return openstack.connect(
        auth_url=module.params["auth_url"],
        username=user,
        password=password or module.params["password"],
        project_name=project,
        user_domain_name="Default",
        project_domain_name="Default",
        region_name=region,
        compute_default_microversion="2.90",
        app_name="discovery-xp",
        load_yaml_config=False,
        load_envvars=False,
    )


@contextlib.contextmanager
def plainly(module: AnsibleModule) -> Iterator[None]:
    """What the APIs refuse ends the task with their words instead of a traceback."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    try:
        yield
    except (ClientException, SDKException) as error:
        module.fail_json(msg=str(error)[:500])


def wait_for(
    module: AnsibleModule, look: Callable[[], T | None], limit_s: float, what: Callable[[], str]
) -> T:
    """Look until there is something; fails with what `what` says after `limit_s`.

    An API that can't be reached yet counts as nothing.
    """
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    deadline = time.monotonic() + limit_s
    said = ""
    while True:
        try:
            found = look()
            if found is not None:
                return found
            said = ""
        except (ClientException, SDKException) as error:
            said = f" ({str(error)[:200]})"
        if time.monotonic() > deadline:
            module.fail_json(msg=what() + said)
        time.sleep(POLL_S)
