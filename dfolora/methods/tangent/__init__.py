"""Tuning by the model's own linearisation: probes of a few directions, and a convex problem that needs no forward."""
