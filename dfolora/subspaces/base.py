from dfolora.subspaces.lora import Measured, Subspace

__all__ = ["Measured", "Subspace"]
