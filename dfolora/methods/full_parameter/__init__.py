"""Tune all parameters of an unmodified model without gradients, in place, in the memory of inference.

``noise`` gives any slice of a direction at any time, ``rounding`` undoes a probe to the bit, ``point`` is the model as
one point that is moved chunk by chunk, ``methods`` are the estimators, ``step`` is what a log holds of one, ``loss``
makes the function that is minimised from a task's rows. ``FullParameter`` joins them, ``method`` makes runs of it.
"""

from dfolora.methods.full_parameter.full_parameter import FullParameter
from dfolora.methods.full_parameter.loss import rows_loss
from dfolora.methods.full_parameter.step import Step

__all__ = ["FullParameter", "Step", "rows_loss"]
