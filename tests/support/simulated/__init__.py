"""A whole system in one thread, on one clock, from one seed: tracers with real buffers and machines, a recorder with its real machine, ring, spools and recovery,
control clients, and a network between them that keeps ZeroMQ's promises and no others."""
