"""The rules of policies: which candidates a user may get, in SQL for tables and in NumPy for scoring.

In: the policies of the settings, item columns, and when a user last took an item.
Out: eligibility bits of items, and the items that a policy keeps from a user. A new rule is written here
twice.
"""
