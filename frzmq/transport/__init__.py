"""Addresses and sockets: the only place that imports zmq. In reading order: addresses, sockets."""
