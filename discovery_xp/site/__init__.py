"""Results as a site: one folder of pages that opens offline and can be published as it is.

1. `content` gathers what is said: runs, points, findings, tables;
2. `interactive` turns runs into figures that answer to a reader;
3. `pages` renders the pages;
4. `writing` puts them in place, all or nothing.

Pages work without any script: all tables are there, and the figures as images.  With it, figures
say what a point is, and what they and the tables show is chosen by back end, layout and validity.
"""
