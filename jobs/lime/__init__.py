"""The command `lime`: the jobs for people, with tables, colours and shell completion.

The input is the definition of each command in `jobs/definitions.py`, and its options. The output is the exit
code of the job, with tables on stdout, or with one JSON object if `--json` is given.
"""
