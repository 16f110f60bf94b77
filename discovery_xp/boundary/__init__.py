"""What crosses the border to files, hosts and other programs: names, quoting, archives, answers."""
