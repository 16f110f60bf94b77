"""`python -m discovery_xp.cli`: the same as the command `discovery-xp`."""

from discovery_xp.cli.main import main

if __name__ == "__main__":
    main()
