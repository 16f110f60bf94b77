"""Campaigns: many points, run one after the other, stopped and gone on with at any time.

What has been run is read from the results on disk alone: a run says in its record which point of
which campaign it is of, and a file beside the runs has the attempts that failed.  So a campaign can
be killed at any moment, moved to another machine with its results, or go on with a changed file:
points are told apart by what they ask for, not by their numbers.

1. `inputs.campaign` reads the file;
2. `schedule` orders its runs, in blocks of random order;
3. `ledger` finds out which of them are done, which failed, which are left;
4. `forecast` says how long the rest takes, and how much disk it needs;
5. `running` makes them.
"""
