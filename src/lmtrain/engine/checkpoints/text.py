"""Which text a training reads, in a few characters: other text of the same size is another training."""

from __future__ import annotations

import hashlib
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from lmtrain.core.files import sha256_json
from lmtrain.data.layouts.base import store_of
from lmtrain.data.layouts.mixed import Joined
from lmtrain.engine.batches.items import fields_of

_SAMPLED = 16  # examples
_SHOWN = 12  # characters of a hash
_known: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()  # it is asked for at each save


def text_of(dataset: Any) -> dict[str, str]:
    """Of ``text_store`` and ``text_sample`` the one that there is for ``dataset``.

    The first is the key of the stores that it looks into, which is of all their text; without a store the second is a
    hash of some examples' ids. Neither of examples that come in a stream or are drawn anew each time they are read.
    """
    try:
        if dataset not in _known:
            _known[dataset] = _text_of(dataset)
        return _known[dataset]
    except TypeError:  # a list: small enough to be looked at again
        return _text_of(dataset)


def _text_of(dataset: Any) -> dict[str, str]:
    if key := _key(dataset):
        return {"text_store": key[:_SHOWN]}
    sample = _sample(dataset)
    return {"text_sample": sample} if sample is not None and sample == _sample(dataset) else {}


def _key(layout: Any) -> str | None:
    if isinstance(layout, Joined):
        keys = {name: _key(part) for name, part in layout.layouts.items()}
        mixed = [getattr(layout, name, None) for name in ("shares", "seed")]
        return sha256_json([keys, mixed]) if all(keys.values()) else None
    store: Any = store_of(layout) or getattr(layout, "store", None)
    found = getattr(store, "manifest", {}).get("key")
    return str(found) if found else None


def _sample(dataset: Any) -> str | None:
    try:
        count = len(dataset)
        digest = hashlib.sha256()
        for number in sorted({count * n // _SAMPLED for n in range(_SAMPLED)}) if count else []:
            ids = _ids(dataset, number)
            digest.update(f"{number} {len(ids)} ".encode() + ids.astype(np.int64).tobytes())
    except Exception:  # of somebody's own data set: it gives no ids by number, and no save may fail for that
        return None
    return digest.hexdigest()[:_SHOWN]


def _ids(dataset: Any, number: int) -> np.ndarray:
    if not hasattr(dataset, "__getitem__"):
        examples = dataset.__getitems__([number])  # (1, T), padded
        return np.asarray(examples.ids)[0, : int(examples.lengths[0])]
    return fields_of(dataset[number], number)["input_ids"]
