"""What one step is: black-box search, AdamW, both, or all weights without gradients."""
