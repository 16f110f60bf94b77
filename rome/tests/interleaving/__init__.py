"""Short histories of concurrent transactions, in every order of their steps, and their judges.

- `statements`: one statement, for ROME (with a plan, or as text) and for plain SQLite.
- `kinds`, `alphabet`: small databases with every kind of key, and the statements over them.
- `schedules`: programs of several sessions, and the orders of their steps that differ.
- `oracle`: what plain SQLite answers over a given state; remembered.
- `sessions`: what a session has written, and what it sees of a state.
- `committed`: the reference model of docs/isolation.md, for READ COMMITTED and SERIALIZABLE.
- `serial`: whether some serial order of the committed transactions explains all answers.
- `databases`, `runner`: run a history on ROME and put each answer to the judges.
- `families`, `campaign`: which histories run together, for the tests and for `python -m`.
- `shrink`, `report`: make a failing history small, show it, count.
"""
