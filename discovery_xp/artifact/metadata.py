"""How software and artifacts are cited, for people and for archives: CITATION.cff, .zenodo.json.

What is said of the software comes from its distribution's own metadata.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from discovery_xp.analysis.paper import SOURCES

CITATION, ZENODO = "CITATION.cff", ".zenodo.json"
# Who stands for the software, and for an artifact whose authors aren't named.
MAINTAINERS = "discovery-xp maintainers"
LICENSE = "GPL-3.0-or-later"


@dataclass(frozen=True)
class Software:
    """The software as its distribution describes itself."""

    name: str
    version: str
    summary: str
    keywords: tuple[str, ...]


def software() -> Software:
    """Return the software's own description."""
    found = importlib.metadata.metadata("discovery-xp")
    words = found["Keywords"] or ""
    return Software(
        found["Name"], found["Version"], found["Summary"],
        tuple(word.strip() for word in words.split(",") if word.strip()),
    )  # fmt: skip


def software_citation() -> str:
    """Return the CITATION.cff of the repository."""
    own = software()
    return _cff(
        {
            "cff-version": "1.2.0",
            "message": "If you use this software, please cite it as below.",
            "type": "software",
            "title": own.name,
            "abstract": own.summary,
            "version": own.version,
            "license": LICENSE,
            "keywords": list(own.keywords),
            "authors": [{"name": MAINTAINERS}],
            "references": _references(),
        }
    )


def artifact_citation(title: str, description: str, authors: Sequence[str], moment: int) -> str:
    """Return the CITATION.cff of an artifact whose newest run ended at `moment`."""
    own = software()
    return _cff(
        {
            "cff-version": "1.2.0",
            "message": "If you use these records, please cite them as below.",
            "type": "dataset",
            "title": title,
            "abstract": description,
            "date-released": _date(moment),
            "license": LICENSE,
            "keywords": list(own.keywords),
            "authors": [{"name": author} for author in authors],
            "references": [
                {
                    "type": "software",
                    "title": own.name,
                    "version": own.version,
                    "license": LICENSE,
                    "authors": [{"name": MAINTAINERS}],
                },
                *_references(),
            ],
        }
    )


def zenodo(title: str, description: str, authors: Sequence[str], moment: int) -> str:
    """Return the .zenodo.json of an artifact."""
    return (
        json.dumps(
            {
                "title": title,
                "upload_type": "dataset",
                "description": description,
                "creators": [{"name": author} for author in authors],
                "license": LICENSE,
                "keywords": list(software().keywords),
                "publication_date": _date(moment),
                "references": [source.citation for source in SOURCES],
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


def _references() -> list[Mapping[str, Any]]:
    """Return what the software was made to repeat."""
    return [
        {
            "type": "conference-paper",
            "title": source.citation.partition(": ")[2].partition(". ")[0],
            "authors": [
                {"name": author.strip()} for author in source.citation.partition(": ")[0].split(",")
            ],
            "notes": source.citation,
        }
        for source in SOURCES
    ]


def _cff(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _date(moment: int) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat()
