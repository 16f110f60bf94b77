"""A Placement that claims one provider over and over, as fast as it can."""

from __future__ import annotations

import collections
import json
import sys
import time
import uuid
from typing import Any

from oslo_config import cfg
from placement import conf as placement_conf
from placement import db_api as placement_db
from placement import deploy
from placement.db.sqlalchemy import migration
from webob import Request

from .orders import begin, serve

_CLASSES = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}


class Claimer:
    """Does the orders."""

    def __init__(self) -> None:
        conf = self._conf = cfg.ConfigOpts()
        placement_conf.register_opts(conf)
        conf.set_override("connection", json.loads(sys.argv[1])["placement"], "placement_database")
        conf.set_override("auth_strategy", "noauth2", "api")
        conf([], project="placement", default_config_files=[])
        placement_db.configure(conf)
        self._application: Any = None

    def create(self, providers: list[str]) -> None:
        """The schema, and providers."""
        migration.upgrade("head")
        for number, provider in enumerate(providers):
            body: Any = {"name": f"host {number}", "uuid": provider}
            self._call("POST", "/resource_providers", body)
            inventories = {name: {"total": 1000000} for name in _CLASSES}
            body = {"resource_provider_generation": 0, "inventories": inventories}
            self._call("PUT", f"/resource_providers/{provider}/inventories", body)

    def claim(self, providers: list[str], count: int) -> dict[str, Any]:
        """So often for new consumers: how many requests had which status, and what errors said."""
        statuses: collections.Counter[str] = collections.Counter()
        words: set[str] = set()
        started = time.perf_counter()
        for number in range(count):
            body = {
                "allocations": {providers[number % len(providers)]: {"resources": _CLASSES}},
                "project_id": "p",
                "user_id": "u",
                "consumer_generation": None,
            }
            status, text = self._call("PUT", f"/allocations/{uuid.uuid4()}", body)
            statuses[str(status)] += 1
            if status >= 400:
                words.add(text[:200])
        seconds = time.perf_counter() - started
        return {"statuses": statuses, "words": sorted(words), "seconds": round(seconds, 2)}

    def usage(self, provider: str) -> Any:
        """What is used of a provider, and its generation."""
        _, text = self._call("GET", f"/resource_providers/{provider}/usages", None)
        return json.loads(text)

    def _call(self, method: str, path: str, body: Any) -> tuple[int, str]:
        if self._application is None:
            self._application = deploy.loadapp(self._conf)
        headers = {
            "x-auth-token": "admin",
            "OpenStack-API-Version": "placement 1.36",
            "Accept": "application/json",
        }
        request = Request.blank(path, method=method, headers=headers)
        if body is not None:
            request.body = json.dumps(body).encode()
            request.content_type = "application/json"
        response = request.get_response(self._application)
        return response.status_int, response.text


def main() -> None:
    """The process; its argument are the databases' URLs by name, as JSON."""
    serve(begin(), Claimer())


if __name__ == "__main__":
    main()
