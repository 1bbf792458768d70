"""Models: store bundles, say which one is a model's champion on a night, and pin what a run reads.

What comes in: trained bundles, and decisions to promote or roll back.
What goes out: bundles on the driver and on every host, champions, and the `NightInputs` of a run.
"""
