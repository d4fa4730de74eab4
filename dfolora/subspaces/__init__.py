"""Where to search: z (P, d) -> low-rank factors of a layer, by name."""
