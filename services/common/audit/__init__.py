"""The audit trail: who did what, or was refused it, in a chain for each service.

A call that changes something leaves a row with its first write, in that write's
transaction; refusals, and calls that wrote nothing, are gathered and written within a
moment. Whichever replica comes first moves rows into the chain, where each is linked
to the one before it by its hash. Until then, for at most a second, a row could be
removed without a trace; what a killed process left is found by the next look of another.
"""
