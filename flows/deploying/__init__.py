"""Deployments: what a home's server should hold, what it holds, and the difference applied.

desired.py      prefect.yaml and a home -> Things           pure but for the import of the flows
automations.py  the automations, with deployments by name
actual.py       a server -> Things
compare.py      Things and Things -> Changes                pure
apply.py        Changes -> the server
"""
