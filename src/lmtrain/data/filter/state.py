"""How far a filter came, on disk: everything before it is in the spool, the shards and the files of the duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmtrain.core.addresses import shown
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, write_json
from lmtrain.data.filter.account import Account
from lmtrain.data.filter.shards import Shard

FOLDER = ".filter"  # hidden: whoever reads the output folder, lmtrain and others, takes the shards only
_STATE = "state.json"
_SHOWN = 80


@dataclass
class State:
    """``task`` and ``segment``: the next to do. ``packed``: shards that lie there; ``shards`` has the waiting ones too.

    ``schema``: the columns of a Parquet output made of lines, in Arrow's own form, base64. ``documents`` and ``bytes``
    are those of the spool under way. Of a mix, ``spans`` are the bytes that lie there of each source until all is read,
    and ``mixed`` counts the parts of the output made of them.
    """

    settings: dict[str, Any]
    inputs: list[list[Any]]
    accounts: list[Account]
    task: int = 0
    segment: int = 0
    documents: int = 0
    bytes: int = 0
    shards: list[Shard] = field(default_factory=list)
    packed: int = 0
    schema: str | None = None
    removed: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    spans: list[int] = field(default_factory=list)
    mixed: int = 0
    seconds: float = 0.0
    finished: bool = False

    @property
    def total(self) -> Account:
        total = Account()
        for account in self.accounts:
            total += account
        return total

    def save(self, folder: Path) -> None:
        value = {
            **asdict(self),
            "accounts": [account.as_json() for account in self.accounts],
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_json(folder / _STATE, value)

    @classmethod
    def load(cls, folder: Path) -> State | None:
        """What an earlier filter left; None: nothing."""
        path = folder / _STATE
        if not path.is_file():
            return None
        try:
            value = read_json(path)
            accounts = [Account.from_json(account) for account in value.pop("accounts")]
            shards = [Shard(**shard) for shard in value.pop("shards")]
            return cls(accounts=accounts, shards=shards, **value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error}); begin anew with --overwrite", flag="--output") from error

    def require(self, settings: dict[str, Any], inputs: Sequence[Sequence[Any]], output: Path) -> None:
        """Raise :class:`UserError` when the output was begun with other options or from other files."""
        remedy = "choose another --output, or begin anew with --overwrite"
        other = [
            f"--{name} (then {_short(self.settings.get(name))}, now {_short(settings.get(name))})"
            for name in {**settings, **self.settings}
            if settings.get(name) != self.settings.get(name)
        ]
        if other:
            raise UserError(f"{output} was begun with other options: {', '.join(other)}; {remedy}", flag="--output")
        then, now = ({entry[0]: list(entry[1:]) for entry in found} for found in (self.inputs, inputs))
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if changed or [entry[0] for entry in self.inputs] != [entry[0] for entry in inputs]:
            shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise UserError(
                f"{output} was begun from other files: {shown or 'in another order'} changed since; {remedy}",
                flag="--output",
            )


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    text = shown(text)  # an earlier version wrote addresses as they were typed
    text = "unset" if value in (None, [], "") else text
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
