"""Peers: other ways in which a candidate can meet a history, on LIME's own trunk, to measure LIME against.

Each peer takes the place of the links. Item tower, action embeddings, pools and dot are the trunk's and the
same for all (`lime_model/train/labels.py`); LIME's own dot also reads its links, as its score has it. In
training, dropout applies to what a peer makes of the history as it applies to LIME's link state. Apart from
the two-tower model no peer folds into factors per user and per item: each reads the history for every
candidate, which is the work that LIME saves.

In: a batch of windows (`past.Past`) and item embeddings. Out: one logit for each target.
"""
