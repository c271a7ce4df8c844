"""The version of the package, which the build reads here too.

It is not asked of what is installed: that takes a tenth of a recorder's start, and after an upgrade it would name the new version for the code that still runs.
"""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
