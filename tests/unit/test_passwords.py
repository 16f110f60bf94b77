import base64
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import derive_topology
from discovery_xp.planning.plan import make_plan
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.testbed import State, Testbed

PLAN = make_plan(derive_topology(2, "10ms"), "mine", cloud=True)
STATE = State(
    plan=PLAN, phase="up", created="2027-01-01T00:00:00Z", deployed="2027-01-01T00:01:00Z"
)


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    made = Testbed("mine")
    made.save(STATE)
    return made


def test_each_party_has_one_of_its_own(testbed: Testbed) -> None:
    made = passwords.ensure(testbed)
    assert set(made) == {*passwords.PASSWORDS, *passwords.FERNET_KEYS}
    assert len(set(made.values())) == len(made)
    for name in passwords.PASSWORDS:  # they stand in URLs
        assert made[name].isalnum()
        assert len(made[name]) >= 32
    for name in passwords.FERNET_KEYS:
        assert len(base64.urlsafe_b64decode(made[name])) == 32


def test_only_the_owner_can_read_them_whatever_the_umask_is(testbed: Testbed) -> None:
    before = os.umask(0)
    try:
        passwords.ensure(testbed)
    finally:
        os.umask(before)
    assert stat.S_IMODE(passwords.path(testbed).stat().st_mode) == 0o600


def test_they_stay_the_same_until_they_are_forgotten(testbed: Testbed) -> None:
    first = passwords.ensure(testbed)
    assert passwords.ensure(testbed) == passwords.load(testbed) == first
    passwords.forget(testbed)
    assert not passwords.path(testbed).exists()
    passwords.forget(testbed)
    second = passwords.ensure(testbed)
    assert not set(first.values()) & set(second.values())


def test_without_a_cloud_there_are_none(testbed: Testbed) -> None:
    with pytest.raises(Refused, match="'mine' has no cloud; make one with 'discovery-xp deploy"):
        passwords.load(testbed)


WITHOUT_THE_BUS = {
    name: "x" for name in (*passwords.PASSWORDS, *passwords.FERNET_KEYS) if name != "rabbitmq"
}
DAMAGED = [
    "",
    "{",
    "null",
    "5",
    "[]",
    '"admin"',
    "{}",
    "\xff",
    json.dumps(WITHOUT_THE_BUS),
    json.dumps({**WITHOUT_THE_BUS, "rabbitmq": None}),
]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:20])
def test_damaged_ones_are_refused_in_one_line_and_left_alone(testbed: Testbed, text: str) -> None:
    file = passwords.path(testbed)
    file.write_text(text, encoding="latin-1")
    for read in (passwords.load, passwords.ensure):
        with pytest.raises(
            Refused, match=r"passwords\.json .*; .*destroy --testbed mine"
        ) as caught:
            read(testbed)
        assert len(str(caught.value).splitlines()) == 1
    assert file.read_text(encoding="latin-1") == text


def test_those_of_an_earlier_version_are_completed(testbed: Testbed) -> None:
    earlier = {name: value for name, value in passwords.ensure(testbed).items()
               if name not in passwords.ADDED}  # fmt: skip
    passwords.path(testbed).write_text(json.dumps(earlier))
    completed = passwords.ensure(testbed)
    assert passwords.load(testbed) == passwords.ensure(testbed) == completed
    assert {name: completed[name] for name in earlier} == earlier
    assert set(completed) == {*passwords.PASSWORDS, *passwords.FERNET_KEYS}
    assert len(set(completed.values())) == len(completed)
    assert stat.S_IMODE(passwords.path(testbed).stat().st_mode) == 0o600


def test_what_is_missing_is_named(testbed: Testbed) -> None:
    passwords.path(testbed).write_text(json.dumps(WITHOUT_THE_BUS))
    with pytest.raises(Refused, match="lacks rabbitmq; "):
        passwords.load(testbed)


def as_documented(salt: bytes, password: str) -> str:
    """The steps of https://www.rabbitmq.com/docs/passwords."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def test_the_bus_knows_its_password_as_rabbitmq_documents_it() -> None:
    documented = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert as_documented(bytes.fromhex("908DC60A"), "test12") == documented
    # Computed with openssl and base64.
    known = "9A2grVABniVl36CSMMLg6FVHDuia0Hw5sWZZkY+unn0Is0qU"
    assert passwords.rabbitmq_hash("secret", "mysalt") == known
    assert known == as_documented(base64.b64decode(known)[:4], "secret")


def test_the_same_password_gives_the_same_text_each_time_and_another_in_another_testbed() -> None:
    texts = {passwords.rabbitmq_hash("secret", salt) for salt in ("one", "two", "one")}
    assert len(texts) == 2
    assert len({base64.b64decode(text)[:4] for text in texts}) == 2


def test_no_plan_and_no_state_tells_them(testbed: Testbed) -> None:
    secrets = passwords.ensure(testbed)
    state = testbed.update(phase="up")
    told = [str(PLAN), repr(PLAN), str(state), repr(state), testbed.state_file.read_text()]
    told += [json.dumps(PLAN.to_json()), json.dumps(state.to_json())]
    for secret in secrets.values():
        assert not any(secret in text for text in told)
    readable = {
        file.name
        for file in testbed.folder.iterdir()
        if any(secret in file.read_text() for secret in secrets.values())
    }
    assert readable == {"passwords.json"}
