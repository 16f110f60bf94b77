"""Names of oslo.messaging as NATS's subjects."""

from __future__ import annotations

import itertools
import re

import pytest
from hermes import subjects

NAMES = ["nova", "a.b", "a b", "*", ">", "", "%", "%2e", ".", "ü", "a\r\nPUB x 0", "x-y_Z9", "/"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_token_whatever_is_in_it(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_%-]+", subjects.token(name))


def test_different_names_are_different_tokens() -> None:
    for one, other in itertools.combinations(NAMES, 2):
        assert subjects.token(one) != subjects.token(other)


def test_usual_names_stay_as_they_are() -> None:
    assert subjects.topic("nova", "conductor") == "oslo.topic.nova.conductor"
    assert subjects.server("nova", "compute", "site1-compute-1") == (
        "oslo.server.nova.compute.site1-compute-1"
    )
    assert subjects.fanout("nova", "scheduler") == "oslo.fanout.nova.scheduler"
    assert subjects.notification("nova", "notifications.info") == (
        "oslo.notify.nova.notifications%2einfo"
    )
