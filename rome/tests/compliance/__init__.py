"""SQLAlchemy's own test suite for dialects, run on ROME.

    python -m tests.compliance [URL ...]        (from rome/)

Without a URL it runs on a Redis server of its own and in memory.
"""
