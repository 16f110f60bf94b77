"""Results to tables and figures: reads what `store` keeps, needs neither EnOSlib nor Ansible."""
