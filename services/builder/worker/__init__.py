"""The worker: takes builds and brings them through their six phases, on any machine.

It promises that whatever it started for a build ends with it: with the build, with
the lease, or with the worker itself, however that dies.
"""
