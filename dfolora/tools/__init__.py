"""What is done with a model before and after a run: merge, export, push, and what a run would cost."""
