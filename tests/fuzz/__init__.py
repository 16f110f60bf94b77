"""Fuzzing of all that reaches discovery-xp from outside; see README.md."""
