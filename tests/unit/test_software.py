import dataclasses
import shutil
import zipfile
from pathlib import Path

import pytest

from discovery_xp import software
from discovery_xp.errors import Failed, Refused
from discovery_xp.software import OwnWheel

PROJECT = """[project]
name = "example-wheel"
version = "1.2"
readme = "README.md"

[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[tool.setuptools.packages.find]
where = ["src"]
"""


@dataclasses.dataclass(frozen=True)
class Example(OwnWheel):
    """A project in a folder of its own."""

    place: Path = Path()

    @property
    def sources(self) -> Path:
        """Not the checkout's."""
        return self.place


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path / "cache"))
    project = tmp_path / "project"
    (project / "src/example").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "README.md").write_text("# example\n")
    (project / "src/example/__init__.py").write_text("ANSWER = 42\n")
    return Example("example-wheel", "", project)


def test_the_wheel_is_built_once_beside_untouched_sources(wheel: Example) -> None:
    before = sorted(path.name for path in wheel.sources.rglob("*"))
    left = wheel.wheel.parent.parent / ".building-x"
    left.mkdir(parents=True)  # of a build that was killed
    built = wheel.ensure()
    assert not left.exists()
    assert built == wheel.wheel
    assert built.name == "example_wheel-1.2-py3-none-any.whl"
    with zipfile.ZipFile(built) as opened:
        assert opened.read("example/__init__.py") == b"ANSWER = 42\n"
    assert sorted(path.name for path in wheel.sources.rglob("*")) == before
    written = built.stat()
    assert wheel.ensure().stat() == written
    assert [path.name for path in built.parent.parent.iterdir() if path.is_dir()] == [wheel.digest]


def test_the_digest_changes_with_the_sources_and_with_nothing_else(wheel: Example) -> None:
    first = wheel.digest
    assert wheel.version == f"1.2+{first}"
    (wheel.sources / "src/example/__pycache__").mkdir()
    (wheel.sources / "src/example/__pycache__/__init__.cpython-311.pyc").write_bytes(b"x")
    (wheel.sources / "src/example.egg-info").mkdir()
    (wheel.sources / "src/example.egg-info/PKG-INFO").write_text("x")
    (wheel.sources / "tests").mkdir()
    (wheel.sources / "tests/test_example.py").write_text("x")
    assert wheel.digest == first
    seen = {first}
    for name, text in (
        ("src/example/__init__.py", "ANSWER = 43\n"),
        ("src/example/data.lua", "return 1\n"),
        ("pyproject.toml", PROJECT.replace("1.2", "1.3")),
    ):
        (wheel.sources / name).write_text(text)
        seen.add(wheel.digest)
    shutil.move(wheel.sources / "src/example/data.lua", wheel.sources / "src/example/other.lua")
    seen.add(wheel.digest)
    assert len(seen) == 5


def test_a_project_that_cannot_be_built_is_told_in_the_builders_words(wheel: Example) -> None:
    broken = PROJECT.replace("setuptools.build_meta", "no_such_backend")
    (wheel.sources / "pyproject.toml").write_text(broken)
    with pytest.raises(Failed, match=r"(?s)example-wheel can't be built: .*no_such_backend"):
        wheel.ensure()
    assert not wheel.wheel.exists()


def test_a_checkout_without_the_project_is_refused_in_a_line(wheel: Example) -> None:
    (wheel.sources / "pyproject.toml").unlink()
    with pytest.raises(Refused, match="has no example-wheel; run from a whole checkout"):
        _ = wheel.digest


def test_what_the_dialect_needs_is_locked() -> None:
    assert {"apsw", "redis", "hiredis", "msgpack", "sqlalchemy"} <= set(
        software.OPENSTACK.locked_versions
    )


def test_redis_is_one_of_debians_packages() -> None:
    assert {"redis-server", "mariadb-server", *software.EVERYWHERE} <= set(
        software.debian_packages()
    )
