"""A log call's template and arguments as the message that it would have been. Neither is trusted: a width of a million blanks is not made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from frzmq.wire.codec import Value

MAX_WIDTH: Final = 200
_SPEC: Final = re.compile(
    r"%(?:\(([^)]{0,100})\))?([#0\- +]{0,5})([0-9]{0,9})(?:\.([0-9]{0,9}))?[hlL]?([diouxXeEfFgGcrsa%])"
)


def format_message(template: str, args: Mapping[str, Value]) -> str:
    """As ``template % args`` would say it; where the two do not fit each other, the template as it is."""
    if not args:
        return template
    position = 0
    fits = True

    def fill(match: re.Match[str]) -> str:
        nonlocal position, fits
        name, flags, width, precision, conversion = match.groups()
        if conversion == "%":
            return "%"
        if name is None:
            name, position = str(position), position + 1
        if name not in args or int(width or 0) > MAX_WIDTH or int(precision or 0) > MAX_WIDTH:
            fits = False
            return match[0]
        value = args[name]
        point = "" if precision is None else f".{precision}"
        try:
            return str(f"%{flags}{width}{point}{conversion}" % (value,))
        except (TypeError, ValueError, OverflowError):
            # such as %d for what is only a type's name now
            return str(value)

    message = _SPEC.sub(fill, template)
    return message if fits else template
