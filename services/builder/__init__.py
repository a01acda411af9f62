"""The builder: build orders, their workers' leases, their ledgers of events, their registration.

It promises that a build ends exactly once, that it registers at most one version
whatever dies on the way, and that whoever follows it sees every event in order.
"""
