"""The LIME model: encoders of columns, item tower, link states, repeat memory and the score, in PyTorch.

In: values of columns, histories of events and item ids. Out: link states, factors and scores; `lime.py` has
the whole model unfolded, and `fold.py` the factors per user and per item.
"""
