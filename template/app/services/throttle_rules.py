"""How many attempts are too many, and under which names they are counted.

Of the names, which may be those of people, only digests are stored.
"""

import hashlib
import ipaddress
import math
from datetime import timedelta
from typing import NamedTuple

# Of an account: five attempts are free, then the wait doubles up to the longest.
FREE_ATTEMPTS = 5
LONGEST_WAIT = timedelta(minutes=15)


class Limit(NamedTuple):
    """How long without an attempt an account starts anew, and after how many it no longer does."""

    forgotten_after: timedelta
    most_attempts: float


# Username and e-mail apart: afterwards an administrator has to help. The two names together allow
# a hundred (NIST SP 800-63B-4, 3.2.2).
GUESSES = Limit(timedelta(days=30), 50)
# Nobody is to be kept from a new name for longer.
RENAMES = Limit(timedelta(days=1), math.inf)

# An address, whichever accounts it tries.
ADDRESS_ATTEMPTS = 30
ADDRESS_WINDOW = timedelta(minutes=5)


def wait_after(attempts: int) -> timedelta:
    if attempts < FREE_ATTEMPTS:
        return timedelta()
    # After ten doublings it is the longest one anyway.
    doublings = min(attempts - FREE_ATTEMPTS + 1, 10)
    return min(timedelta(seconds=2**doublings), LONGEST_WAIT)


def own_account(user_id: int) -> str:
    """Under which wrong current passwords are counted, apart from log-ins."""
    return f"user {user_id}"


def own_names(user_id: int) -> str:
    """Under which new names for oneself are counted."""
    return f"names of user {user_id}"


def own_keys(user_id: int) -> tuple[str, str]:
    return own_account(user_id), own_names(user_id)


def account_key(name: str) -> str:
    return hashlib.sha256(f"account {name}".encode("utf-8", "surrogatepass")).hexdigest()


def address_key(address: str) -> str:
    """Of IPv6, the first 64 bits: a household has all the rest."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        network = address
    else:
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        bits = 64 if mapped.version == 6 else 32
        network = str(ipaddress.ip_network((mapped, bits), strict=False))
    return hashlib.sha256(f"address {network}".encode()).hexdigest()
