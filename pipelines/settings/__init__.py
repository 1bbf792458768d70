"""Settings: one YAML file becomes one frozen, validated `Settings` object; no torch and no Spark is imported.

What comes in: the file that a job's `--config` names, and the names, ids and run keys of its command line.
What goes out: `Settings`, or a `SettingsError` that names each wrong key and its remedy.
"""
