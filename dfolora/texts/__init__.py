"""Instructions as texts: how a language model varies them, and optimizers that search among them, by name."""
