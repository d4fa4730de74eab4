"""What a run is told: options, presets, one dataclass per method."""
