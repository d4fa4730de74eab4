"""Settings: options, presets, and one dataclass per method."""
