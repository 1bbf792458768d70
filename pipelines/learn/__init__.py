"""Learn: train the models, evaluate them with baselines, and promote the better one.

What comes in: the log before a cut-off, and recipes of models from the settings.
What goes out: bundles, the decisions that make champions, and measured evaluations.
"""
