"""How stored tokens become examples: views over a store, which is never copied.

``Blocks`` lays the chosen documents end to end, each between the special tokens of the layout, and cuts the
row into equal blocks::

    documents   [5 6 7]  [8]  [9 4]         prefix (), suffix (0,), block_size 4
    the row     5 6 7 0  8 0 9 4  0
    blocks     |5 6 7 0| 8 0 9 4|           dropped: the last 0

``Windows`` cuts each document by itself, and drops what does not fill a window::

    documents   [5 6 7]  [8]  [9 4]         prefix (), suffix (), block_size 2
    windows     5 6 | 9 4                   dropped: 7 and 8

``Lines`` makes each document one example, cut to fit::

    documents   [5 6 7]  [8]                prefix (1,), suffix (2,), max_length 4
    examples    1 5 6 2                     dropped: 7
                1 8 2

``Pairs`` makes two documents one example, a context and the completion that is to be predicted::

    documents   [5 6]  [8 9]                prefix (), between (), suffix (2,)
    example     5 6 8 9 2                   answer: the last three

``Mixed`` and ``Joined`` make several layouts one: in given shares for training, one after the other for evaluation.
"""

from lmtrain.data.layouts.base import Layout
from lmtrain.data.layouts.blocks import Blocks
from lmtrain.data.layouts.lines import Lines
from lmtrain.data.layouts.mixed import Joined, Mixed
from lmtrain.data.layouts.pairs import Pairs
from lmtrain.data.layouts.windows import Windows

__all__ = ["Blocks", "Joined", "Layout", "Lines", "Mixed", "Pairs", "Windows"]
