"""Policies: which candidates a user may get, each rule in SQL for tables and in numpy for scoring.

In: the policies of the settings, item columns, and when a user last took an item.
Out: eligibility bits of items, and the items that a policy keeps from a user. A new rule is written here
twice.
"""
