"""The points of a campaign's file: levels combined, and what they make of topology and scenario.

Each point's topology and scenario are read as files of their own would be, with the campaign's
lines in the place of theirs.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp.boundary.names import TestbedName
from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.campaign_file import (
    FILES,
    MAX_POINTS,
    SCENARIO_KEYS,
    SHORT_KEYS,
    TOPOLOGY_KEYS,
    CampaignFile,
    PartEntry,
)
from discovery_xp.inputs.campaign_values import Excluded, Point
from discovery_xp.inputs.fields import unknown
from discovery_xp.inputs.scenario import Scenario, scenario_of
from discovery_xp.inputs.topology import Topology, topology_of
from discovery_xp.inputs.yamlfile import MAX_PROBLEMS, Path_, YamlFile, read_yaml
from discovery_xp.places import shipped_file
from discovery_xp.text import short


class _Data:
    """A topology's or a scenario's data as levels make it, and the line of each part."""

    def __init__(self, value: Any, line: int) -> None:
        self.value: Any = copy.deepcopy(value)
        self.line = line
        self.lines: dict[Path_, int] = {}

    def put(self, path: Path_, value: Any, lines: Mapping[Path_, int]) -> None:
        """Have `value` at `path`; mappings are merged, anything else takes the place of what is.

        `lines` has those of the value's parts, by their paths in it.
        """
        if isinstance(value, dict) and isinstance(_inside(self.value, path), dict):
            for key, part in value.items():
                inside = {each[1:]: line for each, line in lines.items() if each[:1] == (key,)}
                self.put((*path, key), part, inside)
            return
        holder = self.value
        for part in path[:-1]:
            if isinstance(holder, dict) and not isinstance(holder.get(part), dict | list):
                holder[part] = {}
            holder = _inside(holder, (part,))
        if isinstance(holder, dict):
            holder[path[-1]] = copy.deepcopy(value)
            kept = {each: at for each, at in self.lines.items() if each[: len(path)] != path}
            self.lines = kept | {(*path, *each): line for each, line in lines.items()}
            for size in range(1, len(path)):
                self.lines.setdefault(path[:size], lines.get((), self.line))

    def file(self, name: str) -> YamlFile:
        """Return the same as a file of this name that was read."""
        return YamlFile(name, data=self.value, lines={(): self.line, **self.lines})


def _inside(value: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


# ---------------------------------------------------------------- levels and points


@dataclass(frozen=True)
class _Level:
    """A level of a factor: its word, what it sets by key, and where that stands in the file."""

    word: str
    settings: Mapping[str, Any]
    places: Mapping[str, Path_]


class PointReader:
    """Makes points of a campaign's file, and reports what is wrong with them to it."""

    def __init__(
        self, parsed: YamlFile, shape: CampaignFile, name: TestbedName, folder: Path
    ) -> None:
        self.parsed, self.shape, self.name, self.folder = parsed, shape, name, folder
        self.read_values: dict[str, Topology | Scenario] = {}

    def read(self) -> tuple[list[Point], list[Excluded]]:
        """Return the points of all parts, each once, and what is left out."""
        self._check_factors()
        if self.parsed.problems:
            raise InvalidInput(self.parsed.problems)
        bases = {kind: self._base(kind) for kind in FILES}
        points: dict[str, Point] = {}
        excluded: list[Excluded] = []
        seen: set[str] = set()
        for index, part in enumerate(self.shape.parts):
            if part.name in seen:
                self.parsed.report(
                    ("parts", index, "name"), f"a second part '{part.name}'", "give it another name"
                )
            seen.add(part.name)
            left_out = [False] * len(part.exclude)
            for levels in self._combinations(index, part):
                why = self._why_excluded(index, part, levels, left_out)
                words = {factor: level.word for factor, level in levels.items()}
                if why is not None:
                    excluded.append(Excluded(part.name, words, why))
                    continue
                point = self._point(index, part, levels, bases)
                if point is None:
                    continue
                known = points.get(point.digest)
                if known is None:
                    points[point.digest] = point
                else:
                    points[point.digest] = dataclasses.replace(
                        known,
                        repeats=max(known.repeats, point.repeats),
                        comes_first=known.comes_first or point.comes_first,
                    )
            for number, found in enumerate(left_out):
                if not found:
                    self.parsed.report(
                        ("parts", index, "exclude", number), "leaves no point out",
                        "correct its levels, or take it out",
                    )  # fmt: skip
        return list(points.values()), excluded

    # ------------------------------------------------------------ what all points begin with

    def _base(self, kind: str) -> Any:
        """Return the data that all points' topologies or scenarios begin with."""
        written = getattr(self.shape, kind)
        if not isinstance(written, str):
            return written
        folder = "topologies" if kind == "topology" else "scenarios"
        named = shipped_file(folder, Path(written))
        path = named if named.is_absolute() or named != Path(written) else self.folder / named
        try:
            base = read_yaml(path, folder)
            # By itself it is a file without problems: those that follow are the levels'.
            (topology_of if kind == "topology" else scenario_of)(base)
        except InvalidInput as error:
            self.parsed.problems += error.problems
            raise InvalidInput(self.parsed.problems) from None
        return base.data

    # ------------------------------------------------------------ factors and levels

    def _check_factors(self) -> None:
        for factor, levels in self.shape.factors.items():
            place: Path_ = ("factors", factor)
            if factor in (*SHORT_KEYS, *FILES):
                self.parsed.report(place, "is a factor that is there", "give it another name")
            for word, settings in levels.items():
                for key in settings:
                    if key not in (*SHORT_KEYS, *FILES):
                        self.parsed.report(
                            (*place, word, key), *unknown(key, (*SHORT_KEYS, *FILES))
                        )

    def _level(self, place: Path_, factor: str, value: Any) -> _Level | None:
        """Return the level of a factor that a value at `place` names; None where it is none."""
        if factor in FILES:
            return _Level("", {factor: value}, {factor: place})
        if isinstance(value, dict | list) or value is None:
            self.parsed.report(
                place, f"'{short(value)}' is not a level", "write a word or a number"
            )
            return None
        word = str(value)
        if factor in self.shape.factors:
            levels = self.shape.factors[factor]
            if word not in levels:
                self.parsed.report(place, *unknown(word, tuple(levels) or ("a level",)))
                return None
            places: dict[str, Path_] = {key: ("factors", factor, word, key) for key in levels[word]}
            return _Level(word, levels[word], places)
        if factor not in SHORT_KEYS:
            known = (*self.shape.factors, *SHORT_KEYS)
            self.parsed.report(place, *unknown(factor, known))
            return None
        return _Level(word, {factor: value}, {factor: place})

    def _levels_of(self, place: Path_, said: Mapping[str, Any]) -> dict[str, _Level] | None:
        """Return the level of each factor in a mapping; None where one isn't right."""
        found = {
            factor: self._level((*place, factor), factor, value) for factor, value in said.items()
        }
        levels = {factor: level for factor, level in found.items() if level is not None}
        return levels if len(levels) == len(found) else None

    # ------------------------------------------------------------ the points of a part

    def _combinations(self, index: int, part: PartEntry) -> Iterator[dict[str, _Level]]:
        place: Path_ = ("parts", index)
        common = self._levels_of((*place, "set"), part.set)
        choices = self._choices((*place, "over"), part)
        if common is None or choices is None:
            return
        if not part.over and not part.points and not part.set:
            self.parsed.report(place, "has no points", "write 'over', 'points' or 'set'")
            return
        self._check_share(place, part)
        count = math.prod(len(levels) for levels in choices.values())
        if count + len(part.points) > MAX_POINTS:
            self.parsed.report(
                (*place, "over"), f"{count} combinations", f"write at most {MAX_POINTS} points"
            )
            return
        if part.over or not part.points:
            for combination in itertools.product(*choices.values()):
                yield {**common, **dict(zip(choices, combination, strict=True))}
        for number, said in enumerate(part.points):
            own = self._levels_of((*place, "points", number), said)
            if own is not None:
                yield {**common, **own}

    def _choices(self, place: Path_, part: PartEntry) -> dict[str, list[_Level]] | None:
        choices: dict[str, list[_Level]] = {}
        is_right = True
        for factor, written in part.over.items():
            values: Sequence[Any]
            if isinstance(written, list):
                values = written
            elif written == "all" and factor in self.shape.factors:
                values = tuple(self.shape.factors[factor])
            else:
                self.parsed.report(
                    (*place, factor), f"'{short(written)}' is no list of levels",
                    "write a list, or 'all' for a factor of 'factors'",
                )  # fmt: skip
                values, is_right = (), False
            found = [
                self._level((*place, factor, number), factor, value)
                for number, value in enumerate(values)
            ]
            choices[factor] = [level for level in found if level is not None]
            words = [level.word for level in choices[factor]]
            for number, word in enumerate(words):
                if word in words[:number]:
                    self.parsed.report(
                        (*place, factor, number), f"'{short(word)}' is there twice",
                        "write each level once",
                    )  # fmt: skip
            if not values and isinstance(written, list):
                self.parsed.report((*place, factor), "has no levels", "write at least one")
            is_right = is_right and len(choices[factor]) == len(values) > 0
        return choices if is_right else None

    def _check_share(self, place: Path_, part: PartEntry) -> None:
        varied = {*part.over, *(factor for point in part.points for factor in point)}
        for number, factor in enumerate(part.share):
            if factor not in varied:
                self.parsed.report(
                    (*place, "share", number), f"'{short(factor)}' doesn't vary in this part",
                    "write a factor of 'over' or 'points'",
                )  # fmt: skip

    def _why_excluded(
        self, index: int, part: PartEntry, levels: Mapping[str, _Level], left_out: list[bool]
    ) -> str | None:
        for number, entry in enumerate(part.exclude):
            if not entry.levels:
                self.parsed.report(
                    ("parts", index, "exclude", number, "levels"), "names no level",
                    "write e.g. '{backend: galera}'",
                )  # fmt: skip
                left_out[number] = True
                continue
            if all(
                factor in levels
                and levels[factor].word
                in [str(value) for value in (said if isinstance(said, list) else [said])]
                for factor, said in entry.levels.items()
            ):
                left_out[number] = True
                return entry.because
        return None

    # ------------------------------------------------------------ one point

    def _point(
        self,
        index: int,
        part: PartEntry,
        levels: Mapping[str, _Level],
        bases: Mapping[str, Any],
    ) -> Point | None:
        lines = {kind: self.parsed.line((kind,)) for kind in FILES}
        data = {kind: _Data(bases[kind], lines[kind]) for kind in FILES}
        for kind in FILES:
            own = {path[1:]: at for path, at in self.parsed.lines.items() if path[:1] == (kind,)}
            data[kind].lines = {path: line for path, line in own.items() if path}
        for level in levels.values():
            for key, value in level.settings.items():
                self._set(data, key, value, level.places[key])
        topology = self._value_of("topology", data["topology"], ("parts", index))
        scenario = self._value_of("scenario", data["scenario"], ("parts", index))
        if not isinstance(topology, Topology) or not isinstance(scenario, Scenario):
            return None
        words = {factor: level.word for factor, level in levels.items() if level.word}
        shared = {factor: word for factor, word in words.items() if factor not in part.share}
        said = [_nameless(data[kind].value) for kind in FILES]
        return Point(
            part=part.name,
            levels=words,
            topology=topology,
            scenario=scenario,
            digest=_digest([*said, self.shape.probes, self.shape.sample_every]),
            deployment=_digest([part.name, shared]),
            repeats=self._repeats(index, part),
            comes_first=part.first,
        )

    def _repeats(self, index: int, part: PartEntry) -> int:
        if self.shape.repeats != "endless":
            return part.repeats or self.shape.repeats
        if part.repeats is not None:
            self.parsed.report(
                ("parts", index, "repeats"), "stands in an endless campaign",
                "take it out: each block has a run of every point",
            )  # fmt: skip
        return 1

    def _set(self, data: Mapping[str, _Data], key: str, value: Any, place: Path_) -> None:
        """Put what a level sets where it belongs."""
        size = len(place)
        lines = {
            path[size:]: line for path, line in self.parsed.lines.items() if path[:size] == place
        }
        if key in FILES:
            if not isinstance(value, dict):
                self.parsed.report(
                    place, f"'{short(value)}' is not a part of a {key}", "write a mapping"
                )
                return
            data[key].put((), value, lines)
            return
        if key in SCENARIO_KEYS:
            data["scenario"].put((key,), value, lines)
            return
        topology = data["topology"]
        path = TOPOLOGY_KEYS[key]
        sites = _inside(topology.value, ("sites",))
        if key == "sites" and isinstance(sites, list) and len(sites) != 1:
            self.parsed.report(
                place, f"the topology has {len(sites)} kinds of sites",
                "write one in 'topology', or the sites themselves in place of their number",
            )  # fmt: skip
            return
        if key == "latency" and isinstance(network := _inside(topology.value, ("network",)), dict):
            network.pop("rtt", None)  # it would say the same twice
        for number in range(len(sites) if "*" in path and isinstance(sites, list) else 1):
            topology.put(tuple(number if each == "*" else each for each in path), value, lines)

    def _value_of(self, kind: str, data: _Data, place: Path_) -> Topology | Scenario | None:
        """Read a point's topology or scenario; its problems are reported as the campaign's."""
        if isinstance(data.value, dict):
            if kind == "topology":  # the testbed's, which all points have in turn
                data.value["name"] = str(self.name)
            else:
                data.value.setdefault("name", data.value.get("kind"))
        known = self.read_values.get(key := json.dumps([kind, data.value], sort_keys=True))
        if known is not None:
            return known
        file = data.file(self.parsed.name)
        try:
            value = topology_of(file) if kind == "topology" else scenario_of(file)
        except InvalidInput as error:
            for problem in error.problems:
                if problem not in self.parsed.problems:
                    self.parsed.problems.append(problem)
            if len(self.parsed.problems) >= MAX_PROBLEMS:
                raise InvalidInput(self.parsed.problems[:MAX_PROBLEMS]) from None
            return None
        self.read_values[key] = value
        return value


def _nameless(data: Any) -> Any:
    """What a file asks for, without what it is called."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if key not in ("name", "description")}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
