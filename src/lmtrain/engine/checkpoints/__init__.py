"""Checkpoints: folders that appear whole, prove themselves before they are used, and hold nothing that runs code.

``write`` makes one, ``manifest`` names its files by size and hash, ``background`` lets training go on meanwhile,
``sharded`` lets each of several processes write its part, and ``sharded_state`` names what is in it,
``read`` finds the newest that verifies, ``keep`` removes old ones, ``plan`` says what would be another training.
"""
