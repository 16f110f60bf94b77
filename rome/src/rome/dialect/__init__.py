"""From SQLAlchemy to ROME: the dialect, its compilers, and the analysis of statements."""

from rome.dialect.base import (
    RomeDialect,
    RomeEtcdDialect,
    RomeExecutionContext,
    RomeMemoryDialect,
    RomeTLSDialect,
)
from rome.dialect.explain import explain

__all__ = [
    "RomeDialect",
    "RomeEtcdDialect",
    "RomeExecutionContext",
    "RomeMemoryDialect",
    "RomeTLSDialect",
    "explain",
]
