"""Values to a plan: hosts, layout of the cloud, databases, requests.  Pure: nothing is touched."""
