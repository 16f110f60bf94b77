"""Where hosts come from: one contract, and a module for each `type` of a topology's provider.

Only this package, and what reads the type from a file (`inputs`, `planning`), know the types by
name: everybody else asks `kind` and `of`.
"""

from __future__ import annotations

import functools
import importlib
from typing import cast

from discovery_xp.providers.contract import Provider as Provider
from discovery_xp.providers.kinds import KINDS as KINDS
from discovery_xp.providers.kinds import Kind


def kind(name: str) -> Kind:
    """Return what is known of a type of provider; it isn't loaded."""
    return KINDS[name]


@functools.cache
def of(name: str) -> Provider:
    """Return the provider of a type; it is loaded, and EnOSlib with it where it needs that."""
    kind = KINDS[name]
    module = importlib.import_module(f"{__name__}.{kind.module}")
    return cast(Provider, getattr(module, kind.provider)())


def local_ones() -> list[Provider]:
    """Return the providers whose hosts are processes of this machine."""
    return [of(name) for name, kind in KINDS.items() if kind.is_local]


def named_ones() -> list[Provider]:
    """Return the providers that find what they lent by a testbed's name, if they can be asked."""
    return [of(name) for name, kind in KINDS.items() if kind.is_named and kind.can_be_asked]
