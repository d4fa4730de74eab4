"""The run folder, its log, and the progress display."""
