"""Export: copy published lists to where they are served from, one file for each kind of place.

What comes in: the rows of `recommendations` of a night.
What goes out: lists in Redis or Valkey and in Parquet folders, and how many a person has there.
"""
