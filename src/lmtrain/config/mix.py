"""Text of several kinds in given shares: ``--train_file code=src/ prose=books/ --mix code=0.7 prose=0.3``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmtrain.core.errors import Problems


@dataclass(frozen=True)
class Mix:
    """``shares`` of the training examples by the name of the text; they sum to 1."""

    shares: dict[str, float]

    @classmethod
    def of(cls, words: Sequence[str]) -> Mix | None:
        """Read ``NAME=SHARE`` words; None for none. Raises :class:`UserError` with all that is wrong."""
        problems, shares = Problems(), dict[str, float]()
        for word in words:
            name, _, number = word.partition("=")
            try:
                share = float(number)
            except ValueError:
                share = float("nan")
            if not name or "/" in name or not 0 < share < float("inf"):
                problems.add(f"{word!r} is no NAME=SHARE with a share above 0, such as code=0.7", flag="--mix")
            elif name in shares:
                problems.add(f"{name} has two shares", flag="--mix")
            else:
                shares[name] = share
        if words and not problems and len(shares) < 2:
            problems.add(
                "a mix is of two texts or more; name the share of each: --mix code=0.7 prose=0.3", flag="--mix"
            )
        problems.raise_if_any()
        total = sum(shares.values())
        return cls({name: share / total for name, share in shares.items()}) if shares else None

    def paths(self, named: Sequence[str], *, flag: str = "--train_file") -> dict[str, list[str]]:
        """``NAME=PATH`` words as paths by name, in the order of the shares. Raises :class:`UserError`."""
        problems, paths = Problems(), {name: list[str]() for name in self.shares}
        for word in named:
            name, equals, path = word.partition("=")
            if not equals or not path:
                problems.add(f"which text of the mix is {word}? Write {next(iter(self.shares))}={word}", flag=flag)
            elif name not in paths:
                problems.add(f"{name} (in {word}) has no share; name one: --mix {name}=0.1", flag=flag)
            else:
                paths[name].append(path)
        for name, found in paths.items():
            if not found:
                problems.add(f"{name} has a share and no text; name it: {flag} {name}=PATH", flag="--mix")
        problems.raise_if_any()
        return paths
