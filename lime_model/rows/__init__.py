"""Rows of tables: what a night stores of each user and each item, in bytes.

In: a bundle with a user's events or with values of item columns. Out: link states as fixed-width bytes
(`link_states`) and the folded factors of items (`items`).
"""
