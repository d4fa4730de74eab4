"""Tune low-rank adapters of any Hugging Face model without gradients."""
