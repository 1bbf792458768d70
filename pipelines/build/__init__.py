"""Build: compute the candidate bank, the item bias, and the link states and repeat memory of users.

What comes in: the pinned versions of `events`, `items` and `users`, and the bundle of the champion.
What goes out: `candidate_bank`, `item_bias`, `user_link_states`, `user_memory`; current rows are kept.
"""
