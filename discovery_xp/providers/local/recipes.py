"""What the root trees of emulated hosts consist of: packages, files, and what is left out.

There are three recipes: plain hosts, hosts that have OpenStack's software besides, and these
without MariaDB.  The last one is a layer above the second: what it takes away.
"""

from __future__ import annotations

import hashlib
import json
import platform
from enum import Enum

from discovery_xp import software
from discovery_xp.planning import databases
from discovery_xp.planning.plan import Plan

# Whatever the control machine runs: mmdebstrap makes it on Debian 13 and on Ubuntu, too.
SUITE = "bookworm"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "openssh-server",
    "python3",  # python3-minimal lacks modules that Ansible needs
    "iproute2",
    "iputils-ping",
    "fping",
    "iperf3",
    "procps",
)

# What a server in a container has no use for: devices, terminals, the firmware's and
# the clock's housekeeping.  Each unit that doesn't start saves CPU at every boot.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "proc-sys-fs-binfmt_misc.automount",
    "remote-fs.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-initctl.socket",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-resolved.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
    "veritysetup.target",
)

FILES = {
    "etc/ssh/sshd_config.d/emulated-host.conf": (
        "# Keys only; without PAM, name look-ups and greetings a login is quick.\n"
        "UsePAM no\nUseDNS no\nPrintMotd no\nPrintLastLog no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "MaxStartups 200\nMaxSessions 200\n"
    ),
    # The configuration is the same on every host: checking it at each start is waste.
    "etc/systemd/system/ssh.service.d/quick-start.conf": "[Service]\nExecStartPre=\n",
    "etc/systemd/journald.conf.d/small.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n",
    "etc/fstab": "",
    "etc/resolv.conf": "",
}

EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

# Debian starts servers once they are installed; here a deployment starts them.
SERVERS = ("mariadb.service", "rabbitmq-server.service", "memcached.service", "epmd.socket",
           "epmd.service", "logrotate.timer", "cron.service", "mysql.service",
           "redis-server.service", "redis.service", "haproxy.service", "garb.service")  # fmt: skip


# What only a cloud on MariaDB needs; what they alone brought goes with them.
MARIADB = ("mariadb-server", "mariadb-backup", "galera-arbitrator-4")
# Debian's scripts would stop servers: there are none, and this machine's own are none of theirs.
WITHOUT_MARIADB = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/tree,workdir=$2/work" "$2/root"
printf '#!/bin/sh\\nexit 101\\n' >"$2/root/usr/sbin/policy-rc.d"
chmod 755 "$2/root/usr/sbin/policy-rc.d"
layer=$2
shift 2
chroot "$layer/root" env DEBIAN_FRONTEND=noninteractive \\
    apt-get --yes --quiet --purge --auto-remove --option=Dpkg::Use-Pty=0 remove "$@"
rm -rf "$layer/root/usr/sbin/policy-rc.d" "$layer/root/etc/mysql" "$layer/root/var/log/apt"
"""


class Recipe(Enum):
    """What a root tree has: nothing of OpenStack, all that a cloud may need, or no MariaDB."""

    HOSTS = "hosts"
    CLOUD = "cloud"
    CLOUD_WITHOUT_MARIADB = "cloud without MariaDB"

    @property
    def has_openstack(self) -> bool:
        """True where OpenStack's software is in the tree."""
        return self is not Recipe.HOSTS


def recipe_of(plan: Plan) -> Recipe:
    """Return what a plan's hosts have: MariaDB is on none where it holds no database."""
    if plan.cloud is None:
        return Recipe.HOSTS
    has_mariadb = bool(plan.cloud.stores_of(databases.MARIADB))
    return Recipe.CLOUD if has_mariadb else Recipe.CLOUD_WITHOUT_MARIADB


def key(wanted: Recipe) -> str:
    """Twelve hexadecimal digits that change with the recipe's contents."""
    if wanted is Recipe.CLOUD_WITHOUT_MARIADB:
        recipe: list[object] = [key(Recipe.CLOUD), MARIADB, WITHOUT_MARIADB]
    else:
        recipe = [SUITE, platform.machine(), PACKAGES, MASKED_UNITS, FILES, EXCLUDED]
    if wanted is Recipe.CLOUD:
        recipe += [software.debian_packages(), SERVERS,
                   [(each.lock_digest, each.place) for each in software.ENVIRONMENTS]]  # fmt: skip
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
