"""The load as Rally runs it: an iteration is a VM, a round of reads, or a token.

Rally brings the users, keeps the results and writes the reports.  Its own runners start a
thread, a login and a poller for each iteration, and 500 of those are a load of their own.
So the runner is ours, too, and all of the load is in `discovery_xp.onhost.load`, which is
laid down beside this file; docs/load.md says what each step is.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from rally.common import validation
from rally.task import runner
from rally_openstack.common import osclients
from rally_openstack.task import scenario

from discovery_xp.onhost.load.api import ERROR_LENGTH, Login, Refusal
from discovery_xp.onhost.load.generator import LoadGenerator
from discovery_xp.onhost.wire.request import LoadRequest


def login(credential: Any) -> Login:
    """Return a user's login, by Rally's own session."""
    session, _ = osclients.Clients(credential).keystone.get_session()
    return Login(credential, session)


@validation.add("required_platform", platform="openstack", admin=True, users=True)
@scenario.configure(name="Discovery.load")
class Load(scenario.OpenStackScenario):
    """VMs, reads or tokens, spread over regions."""

    report: Callable[[dict[str, Any]], None] = staticmethod(lambda _result: None)

    def run(self, load: dict) -> None:  # type: ignore[type-arg]
        """Do all of the load.

        :param load: a LoadRequest, as JSON has it
        """
        asyncio.run(self.start(LoadRequest.from_json(load)))

    async def start(self, request: LoadRequest) -> None:
        """Make the load; what ends it early is a line of its records."""
        user = login(self.context["users"][0]["credential"])
        admin = login(self.context["admin"]["credential"])
        generator = LoadGenerator(request, user, admin, self.report)
        try:
            await generator.run()
        except Exception as error:
            words = str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
            generator.records.write("crash", error=words[:ERROR_LENGTH])
            raise


@runner.configure(name="discovery")
class Together(runner.ScenarioRunner):
    """Leaves it to the scenario what runs when; its iterations go to Rally one by one."""

    CONFIG_SCHEMA = {"type": "object", "additionalProperties": False, "properties": {}}  # noqa: RUF012

    def _run_scenario(
        self, cls: Any, method_name: str, context: dict[str, Any], args: dict[str, Any]
    ) -> None:
        instance = cls(runner._get_scenario_context(0, context))
        instance.report = self._send_result
        try:
            getattr(instance, method_name)(**args)
        finally:
            self._flush_results()
