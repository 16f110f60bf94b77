"""What hosts send: each kind of record is written and parsed by one module.

Writers run on hosts, parsers on the control machine.  A host may send anything else: parsers
raise `checks.Unfit` for it, and bound what they take.
"""
