"""The metadata service: the system of record.

It owns projects, tokens and delegations, models, versions and aliases, runs with
their parameters and metrics, datasets, and who uses which version. It promises
that an acknowledged write is durable, that a number once allotted is never used
again, and that a READY version's bytes are held by the artifact service.
"""
