"""Read one YAML file into one frozen, validated `Settings` object, without importing torch or Spark.

The input is the file that a job's `--config` names, and the names, ids and run keys of its command line.
The output is `Settings`, or a `SettingsError` that names each wrong key and its remedy.
"""
