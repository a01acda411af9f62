"""Automations: when to build, and when to put what was built live.

An occurrence of a trigger becomes an execution in the transaction that moves the
trigger on, under a key of its own: never twice, and never not at all. An execution
is a small state machine in the database, driven on by whichever replica comes.
"""
