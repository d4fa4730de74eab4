"""Search for the instruction that a task goes best with: what scores a text, and the run of a search."""
