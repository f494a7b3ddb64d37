"""What can fail late, tried early. Empty so far: the checks before the first write are in ``engine.assembly``."""
