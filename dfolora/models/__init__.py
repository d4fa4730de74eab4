"""A transformers model and what of it may change: loading, adapted modules, LoRA."""
