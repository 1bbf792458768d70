"""The rules that a policy can state; `sql.py` applies them to tables, `arrays.py` to arrays in scoring."""

from __future__ import annotations

from typing import Literal

# Which items of a user's history a policy excludes: none, all, or those of the last so many days.
ExcludeSeen = Literal["none", "all"] | int
