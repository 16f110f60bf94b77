"""The command: `./xp docs [--check]`."""

from __future__ import annotations

import argparse
import sys

from docs.generator.blocks import ROOT, MarkError, documents, outdated
from docs.generator.sources import SOURCES


def main() -> int:
    """Fill all documents, or with --check name those that differ; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="./xp docs", description="Fill the documents' blocks from results and code."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where one differs")
    options = parser.parse_args()
    try:
        new = outdated(documents(), SOURCES)
    except MarkError as error:
        print(error, file=sys.stderr)
        return 2
    for path, text in new.items():
        if not options.check:
            path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {'differs' if options.check else 'written'}")
    return 1 if new and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
