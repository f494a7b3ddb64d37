"""From hidden states to the loss and its gradients, without the logits (N, V) as a whole.

Shapes: ``N`` predicted positions, ``D`` hidden, ``V`` vocabulary, ``C`` positions of a chunk.
"""

from lmtrain.objectives.linear_cross_entropy.choose import Choice, bounded, choose_kernel
from lmtrain.objectives.linear_cross_entropy.kernel import DEFAULT, PLAIN, Kernel, LinearLoss
from lmtrain.objectives.linear_cross_entropy.loss import linear_cross_entropy

__all__ = ["DEFAULT", "PLAIN", "Choice", "Kernel", "LinearLoss", "bounded", "choose_kernel", "linear_cross_entropy"]
