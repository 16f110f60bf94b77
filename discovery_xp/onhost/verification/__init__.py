"""OpenStack's own API tests, Tempest's, on the host that runs them.

`cloud` makes what they need in the cloud and removes what they leave, `run` runs them, and
`verdicts` makes of their stream what became of each.  Whatever happens is written as lines of
JSON (`wire.verification`).  `cloud` needs OpenStack's SDK, `run` needs Tempest.
"""
