"""Backends: filters that decide which candidates need a canonical score, on CPUs and GPUs.

In: users, a shard of candidates and scores that raise each user's threshold. Out: for every user the rows
that may reach the K best, never too few (`scoring/backend.py`); `choose` picks the backend of a night.
"""
