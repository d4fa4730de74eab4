"""The run folder, its log, what a person sees of it."""
