"""Set-up, as an engineer on another network meets it."""
