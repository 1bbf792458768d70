"""Operate: keep the warehouse small and lawful: upkeep, pins, rollback, and forgetting a person.

What comes in: published nights, staged runs, and requests of an operator.
What goes out: smaller tables, pinned nights, the lists of an earlier run in force, and proofs of erasure.
"""
