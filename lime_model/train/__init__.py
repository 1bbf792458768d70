"""Training: from a log of events, items and users to the models of a bundle.

In: Arrow tables (`fit.TrainingSource`) and recipes (`config.Recipe`). Out: bundles without a version, next
items by `fit.fit_variants` and labels by `fit.fit_labels`. Nothing here knows Spark, tables or settings
files.
"""
