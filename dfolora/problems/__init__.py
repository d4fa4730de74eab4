"""What a candidate costs: examples to token rows, class scores to losses, the look at the dev set."""
