"""SQLite's sqllogictest suite, run through ROME's connections.

    python -m tests.sqllogictest PATH [--store redis] [--one-transaction] [--save]   (from rome/)

PATH is a folder with the suite's files (`*.test`), or one of them.
"""
