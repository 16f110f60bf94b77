"""MariaDB at each of two sites: first of Nova's cells, then Galera's nodes on the same hosts."""
