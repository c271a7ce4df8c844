"""``python -m frzmq``."""

import sys

from frzmq.cli import main

sys.exit(main())
