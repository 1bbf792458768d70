"""Incremental nights: prove that an unchanged user's list is still exact from a few pairs instead of all.

In: the entries that an earlier night kept for a user, and which candidates changed since (`NightChanges`).
Out: the same list, to the bit, as a full pass gives; or nothing, and then the user is scored in full.
"""
