"""Of two versions of a library, the newer: its owner raises one as the template does."""

import re

# `fastapi==0.165.0`, `"fastapi>=0.165"`, and an action: `actions/checkout@<commit> # v7.0.1`.
PIN = re.compile(
    rb"(?<![\w.-])(?P<name>[\w.-]+(?:\[[\w,-]+\])?[=>]=|[\w.-]+/[\w./-]+@)"
    rb"(?P<version>[0-9a-f]{40} # v[\w.]+|\d[\w.]*)"
)


def agree(sides: dict[str, bytes]) -> dict[str, bytes]:
    """The sides of a conflict, with the newer version in both where both have raised one."""
    before, yours, template = (newest(sides[side]) for side in ("before", "yours", "template"))
    raised = {
        name: max(yours[name], template[name], key=order)
        for name in yours.keys() & template.keys() & before.keys()
        # One that is held back stays a conflict.
        if order(before[name]) < min(order(yours[name]), order(template[name]))
    }

    def raise_pin(pin: re.Match[bytes]) -> bytes:
        return pin["name"] + raised.get(pin["name"], pin["version"])

    return {
        "before": sides["before"],
        "yours": PIN.sub(raise_pin, sides["yours"]),
        "template": PIN.sub(raise_pin, sides["template"]),
    }


def newest(text: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for pin in PIN.finditer(text):
        known = found.setdefault(pin["name"], pin["version"])
        found[pin["name"]] = max(known, pin["version"], key=order)
    return found


def order(version: bytes) -> list[int]:
    """A commit is as new as the version behind it."""
    return [int(number) for number in re.findall(rb"\d+", version.split(b" # v")[-1])]
