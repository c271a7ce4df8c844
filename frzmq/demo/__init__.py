"""The demo: a small shop of three services in processes of their own, some of whose requests are slow for a reason that no single service can see.

``gateway`` takes orders over HTTP and asks ``orders``, which prices them in a pool of processes and reserves the goods at ``inventory``,
which keeps them in SQLite. `frzmq.demo.shop` runs them.
"""
