"""Methods, that is what one step of a run does: search, AdamW, both, or all weights without gradients."""
