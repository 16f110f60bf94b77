"""`python -m tests.grid5000 --sites rennes:paravance=4,nantes:econome=4`"""

from __future__ import annotations

import argparse
import sys
import threading

from .emulator import Emulator
from .platform import Platform, RunningClock, User, parse_sites
from .server import Server, pool


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="Emulate Grid'5000's REST API."
    )
    parser.add_argument("--sites", default="rennes:paravance=4,nantes:econome=4",
                        metavar="SITE:CLUSTER=NODES+CLUSTER=NODES,...")  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="any free one if none is given")
    parser.add_argument("--user", default="alice")
    parser.add_argument("--password", default="secret")
    parser.add_argument("--time-factor", type=float, default=1, metavar="F",
                        help="let the platform's time run F times as fast")  # fmt: skip
    options = parser.parse_args()
    try:
        sites = parse_sites(options.sites)
        user = User(options.user, options.password)
        platform = Platform.of({name: {**clusters} for name, clusters in sites.items()}, [user])
    except ValueError as error:
        parser.error(str(error))
    clock = RunningClock(options.time_factor)
    server = Server(Emulator(platform, clock, executor=pool()), options.port)
    with server:
        sys.stdout.write(
            f"# Grid'5000's API is at {server.uri}; this is a ~/.python-grid5000.yaml for it:\n"
            f"uri: {server.uri}\n"
            f"username: {user.name}\n"
            f"password: {user.password}\n"
        )
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            server.emulator.close()
            sys.stdout.write("# Ended.\n")


if __name__ == "__main__":
    main()
