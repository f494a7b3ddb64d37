"""How often to save: often costs pauses, seldom costs work that is made again.

With a mean time *M* between failures of the whole run and a pause of *δ* a save, the best time *τ* to work between two
saves is about ``√(2 δ M)`` (Young 1974, "A first order approximation to the optimum checkpoint interval"). Daly 2006,
"A higher order estimate of the optimum checkpoint interval for restart dumps", corrects it where *δ* is not small
beside *M*.
"""

from __future__ import annotations

import math


def young(pause: float, mtbf: float) -> float:
    """Seconds of work between two saves, to first order."""
    return math.sqrt(2 * pause * mtbf)


def daly(pause: float, mtbf: float) -> float:
    """Seconds of work between two saves, to higher order (Daly 2006)."""
    if pause >= 2 * mtbf:
        return mtbf
    x = pause / (2 * mtbf)
    return young(pause, mtbf) * (1 + math.sqrt(x) / 3 + x / 9) - pause
