"""Compiled statements whose answers must agree with each other, whatever way they take.

A condition may be tested in the store, by an index, or in SQLite; a sum may be made in the
store; rows may come with an earlier statement or from the result cache.  Each statement is run in
several ways that must give the same, over columns of all affinities with values of all classes.
"""
