"""The recorder: the process that owns the ring. ``machine`` is pure, ``worker`` is the loop around it."""
