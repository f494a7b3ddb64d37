"""Sources and a tokenizer in, a token store out; the same work is never done twice.

The stages, a module each::

    request    what to prepare, and the key under which its store is found: content, settings, tokenizer, format
    finding    a finished store of that key
    plan       the sources in segments, a function of the input alone; any run of segments is a part
    engine     the encoder that a preparation uses, chosen once for all of it
    encoding   segments of text to tokens, into a writer
    parts      a part on disk, and what is known of it
    workers    parts made by processes, or (on_ray) as tasks of Ray
    filling    segments into a writer: by this process, or as the parts of workers
    manifest   what a store says of itself
    shards     parts made by hand or by array jobs, and merged later
    making     the store itself, by whichever of these ways was asked for

However many processes, machines or shards make the parts, the segments are the same, and so is the store, to the byte.
"""

from __future__ import annotations

from lmtrain.data.preparing.making import prepare
from lmtrain.data.preparing.request import Making, Prepared, Request, versions

__all__ = ["Making", "Prepared", "Request", "prepare", "versions"]
