"""Checkpoints: folders that appear whole, prove themselves before they are used, and hold nothing that runs code.

``write`` makes one, ``manifest`` names its files by size and hash, ``background`` lets training go on meanwhile,
``read`` finds the newest that verifies, ``keep`` removes old ones, ``plan`` says what would be another training.
"""

from __future__ import annotations
