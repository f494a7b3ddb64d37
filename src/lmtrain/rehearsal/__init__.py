"""A run tried before it runs: the plan (``lmtrain check``) and the anatomy of its steps (``lmtrain profile``)."""
