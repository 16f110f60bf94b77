"""Artifacts: runs with all that somebody else needs to judge a paper's claims about them.

An artifact is a folder, and an archive of it: an appendix, claims, records, report, source,
data dictionary, metadata and checksums.  `docs/artifacts.md` describes it.

1. `subject` finds the runs that a campaign or a folder of results has, and the claims about them;
2. `claims` reads these, and `judging` says which of them hold on stored runs;
3. `collecting` chooses the files of runs, and `screening` refuses what is secret in them;
4. `appendix`, `dictionary`, `metadata`, `crate` and `source` make what stands beside them;
5. `packing` writes folder, checksums and archive, or nothing; `making` has all of it in order;
6. `opening` opens an artifact that may be anybody's; `again` makes the runs of a claim anew.
"""
