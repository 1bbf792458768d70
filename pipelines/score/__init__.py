"""Score: plan a night, ship the packed bank to every host, and score all users against it.

What comes in: the tables that build wrote, and the staged lists that an incremental night starts from.
What goes out: lists and their kept entries in `staging`, `candidate_history`, and forecasts of a night.
"""
