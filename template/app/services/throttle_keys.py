"""Under which names attempts are counted: of whom, and from where. Only their digests are stored."""

import hashlib
import ipaddress


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
