"""Problems, that is what a candidate costs: examples to tokens, class scores to losses, early stopping."""
