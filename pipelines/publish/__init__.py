"""Publish: certify and audit the staged lists, compare them with a full night, and put them in force.

What comes in: staged lists, the raw history, and the limits in the settings.
What goes out: rows of `recommendations`, and manifests of certificates, audits and rollbacks.
"""
