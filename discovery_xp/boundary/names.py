"""Names: whatever becomes a path, a unit, an interface, a host's name or a line of a file.

Each kind is a type whose values are valid because no other can be made: the constructor
checks, and raises `BadName`.  What takes a `TestbedName` need not look at it again.  A name
is made where it enters: an option of the command line, a key of a topology, a stored state,
a folder's listing.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import yaml
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from discovery_xp.errors import InvalidInput, Problem
from discovery_xp.text import short

ROLES = ("master", "controller", "compute", "data")
# Words that Ansible or we give a meaning of their own among the groups of hosts.
RESERVED = frozenset({*ROLES, "all", "ungrouped", "localhost", "none", "backbone", "wan"})

_WORD = "[a-z]([a-z0-9-]{0,%d}[a-z0-9])?"
_WORD_REMEDY = "write 1 to %d of a-z, 0-9 and '-', a letter first, no '-' last"


class BadName(InvalidInput):
    """A text that is no name: `reason` and `remedy`, both without a full stop."""

    def __init__(self, place: str, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__([Problem(place, 0, "", reason, remedy)])


class Name(str):
    """A text that was checked when it was made; equal to the plain text.

    `kind` is what messages call it, `pattern` what the whole of it matches.
    """

    __slots__ = ()
    kind: ClassVar[str] = "name"
    pattern: ClassVar[str] = _WORD % 28
    remedy: ClassVar[str] = _WORD_REMEDY % 30

    def __new__(cls, text: str) -> Self:
        """Check `text`; raises BadName, whose place is the kind of name."""
        if type(text) is cls:
            return text
        return cls.parse(text, cls.kind)

    @classmethod
    def parse(cls, text: object, place: str) -> Self:
        """Make a name of `text`; raises BadName, a problem at `place`, where it is none."""
        objection = cls.objection(text)
        if objection is not None:
            raise BadName(place, *objection)
        return super().__new__(cls, text)

    @classmethod
    def objection(cls, text: object) -> tuple[str, str] | None:
        """Say what is wrong with `text`, and what to write; None where nothing is."""
        if not isinstance(text, str) or not re.fullmatch(cls.pattern, text):
            return f"'{short(text)}' is not a {cls.kind}", cls.remedy
        return None

    @classmethod
    def among(cls, texts: Iterable[str]) -> list[Self]:
        """Return those of `texts` that are such names: for what others put into a folder."""
        return [cls(text) for text in texts if cls.objection(text) is None]

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def validate(value: object) -> Name:
            try:
                return cls.parse(value, cls.kind)
            except BadName as error:
                context = {"reason": error.reason, "remedy": error.remedy}
                raise PydanticCustomError("name", "{reason}", context) from None

        return core_schema.no_info_plain_validator_function(validate)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{cls.pattern}$"}


class TestbedName(Name):
    """A testbed's: of folders (its runs', too), network namespaces, groups of processes, jobs."""

    __slots__ = ()
    __test__ = False  # a name that pytest would take for a test


class ScenarioName(Name):
    """A scenario's; the title of what Rally runs."""

    __slots__ = ()


class ExperimentName(Name):
    """An experiment's: of a folder of results, and of a run's record, which anybody may write.

    Testbeds' names are among them.
    """

    __slots__ = ()
    kind = "name of an experiment"
    pattern = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
    remedy = "write 1 to 100 of letters, digits and ._-, a letter or digit first"


class RunName(Name):
    """A run's among those of its experiment: its start in UTC, and its plan's digest."""

    __slots__ = ()
    kind = "name of a run"
    pattern = "[0-9]{8}T[0-9]{6}Z-[0-9a-f]{1,64}"
    remedy = "write e.g. 20261123T160501Z-1f2e3d4c5b6a"

    @classmethod
    def of(cls, started: datetime.datetime, plan: str) -> Self:
        """Name the run of a plan's digest that started then, in UTC."""
        return cls(f"{started:%Y%m%dT%H%M%SZ}-{plan}")


class SiteName(Name):
    """A site's: of networks, interfaces, groups of hosts, the cloud's regions and zones.

    Up to 30 characters of the topology, and a number where it stands for several.
    """

    __slots__ = ()
    pattern = _WORD % 31
    remedy = _WORD_REMEDY % 33

    @classmethod
    def objection(cls, text: object) -> tuple[str, str] | None:
        """Say what is wrong with `text`; some words have a meaning of their own."""
        objection = super().objection(text)
        if objection is None and text in RESERVED:
            objection = f"'{text}' is a word of its own", "choose another name"
        if objection is None and re.search(HostName.ending, str(text)):
            objection = f"'{text}' reads like the name of a host", "choose another name"
        return objection


class HostName(Name):
    """A host's, SITE-ROLE-NUMBER: of folders, network namespaces, inventories, DNS."""

    __slots__ = ()
    ending: ClassVar[str] = rf"-({'|'.join(ROLES)})-[1-9][0-9]*$"
    kind = "name of a host"
    pattern = _WORD % 31 + ending.replace("*$", "{0,3}")
    remedy = "write SITE-ROLE-NUMBER, e.g. 'site1-compute-2'"


class RegionName(Name):
    """A region's of the cloud: its site's name, or its controller's where a site has more."""

    __slots__ = ()
    kind = "region"
    pattern = _WORD % 61
    remedy = "write e.g. site1"


def derived(stem: str, prefix: str) -> str:
    """Make a name of a file's: in lower case, '-' for whatever else isn't allowed.

    `prefix` is one letter, for files whose name doesn't begin with one.
    """
    cleaned = re.sub(r"[^a-z0-9]+", "-", stem[:200].lower()).strip("-")[:30].rstrip("-")
    if Name.objection(cleaned) is None:
        return cleaned
    return f"{prefix}-{cleaned}"[:30].rstrip("-")


# A name is written to YAML as the text that it is.
yaml.SafeDumper.add_multi_representer(
    Name, lambda dumper, name: dumper.represent_str(str.__str__(name))
)
