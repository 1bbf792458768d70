"""Look at foreign data, guess what it holds, and write settings and daily drops; no module here needs Spark.

The input is a file or folder as `lime init` gets it. The output is a settings file, the daily drops of flat
files, and what a person should know: guesses with their evidence, odd values and faults.
"""
