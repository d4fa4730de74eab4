"""Zeroth-order estimators: a step of gradient descent from the losses of a few random probes.

Four parts that combine freely: ``noise`` (where a probe's direction comes from), ``weights`` (how the losses of a pool
make one direction of many), ``gradient`` (from probes and their losses to an estimate) and ``update`` (SGD, momentum,
Adam). ``estimator`` joins them behind ask and tell; ``spsa``, ``pool``, ``es`` and ``fzoo`` are the methods by name.
"""
