"""Random schemas and statements, run on SQLite and on ROME alike."""
