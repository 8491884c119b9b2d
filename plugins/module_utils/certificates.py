# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""X.509 certificates: what is wrong with one that somebody brings, and what a private authority has to do.

Everything is read on the control node. Texts are PEM (RFC 7468); a certificate may be followed by its chain.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
except ImportError:
    x509 = None  # type: ignore[assignment]

UTC = timezone.utc  # noqa: UP017, which Python 3.10 does not have
AUTHORITY, NEXT_AUTHORITY = "ca", "ca-next"
MIN_RSA_BITS = 2048  # OpenSSL, security level 2, which is Debian's default
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_GIVE = "give the text that begins with -----BEGIN CERTIFICATE-----"


def faults(
    certificate: Any, private_key: Any = None, names: Iterable[str] = (), now: datetime | None = None
) -> list[str]:
    """Return one sentence for each reason why a server could not use a certificate.

    private_key:  None, if the key is not to be looked at. No fault quotes it.
    names:        DNS names and addresses by which clients verify the server
    now:          with a time zone; the present, if it is left out

    A text that begins with an authority is a bundle of authorities, in any order, and not a chain.
    """
    _require_cryptography()
    try:
        chain = _certificates(certificate)
    except ValueError as error:
        return [f"the certificate cannot be read ({error}): {_GIVE}"]
    if not chain:
        return [f"this is no certificate: {_GIVE}"]
    if _is_authority(chain[0]):
        chain = chain[:1]
    return [
        *_time_faults(chain, now or datetime.now(UTC)),
        *_key_faults(chain[0], private_key),
        *_name_faults(chain[0], names),
        *_order_faults(chain),
    ]


def work(
    directory: str,
    certificates: Iterable[Mapping[str, Any]],
    renew_days: float = 30,
    every: bool = False,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Tell what the authority that a directory holds has to do, so that each certificate can be used.

    directory:     ca.crt, ca.key, and <name>.crt, <name>.key for each certificate
    certificates:  [{name, subject_alt_names}], as the role tls takes them
    renew_days:    days before its end that a certificate is issued again
    every:         whether every certificate is due, whatever it is like

    ca.crt may hold several authorities, which clients trust alike; the first is the one that signs.

    Returns due, [{name, subject_alt_names, reason}], the authority first; gone, the names of the certificates that this
    authority issued and nobody asks for any more; and authorities, how many are trusted.
    """
    _require_cryptography()
    path = Path(directory)
    limit = (now or datetime.now(UTC)) + timedelta(days=float(renew_days))
    trusted = _read(path / f"{AUTHORITY}.crt")
    due = []
    reason = _missing(path, AUTHORITY, trusted)
    if reason:
        trusted = []
    elif len(trusted) == 1 and _end(trusted[0]) < limit:  # its key stays, and so does what it has signed
        reason = f"ends on {_end(trusted[0]):%Y-%m-%d}"
    if reason:
        due.append({"name": AUTHORITY, "subject_alt_names": [], "reason": reason})
    wanted = {item["name"]: list(item["subject_alt_names"]) for item in certificates}
    for name, names in wanted.items():
        found = _read(path / f"{name}.crt")
        reason = _missing(path, name, found) or _stale(found[0], path / f"{name}.key", names, trusted[:1], limit)
        if reason or every:
            due.append({"name": name, "subject_alt_names": names, "reason": reason or "all are issued again"})
    kept = {AUTHORITY, NEXT_AUTHORITY, *wanted}
    return {
        "due": due,
        "gone": [
            file.stem
            for file in sorted(path.glob("*.crt"))
            if file.stem not in kept and any(_issued(found, trusted) for found in _read(file)[:1])
        ],
        "authorities": len(trusted),
    }


def _require_cryptography() -> None:
    if x509 is None:
        raise ValueError("the control node lacks the Python library cryptography: pip install cryptography")


def _certificates(text: Any) -> list[Any]:
    blocks = _PEM.findall(text) if isinstance(text, str) else []
    return [x509.load_pem_x509_certificate(block.encode()) for block in blocks]


def _read(path: Path) -> list[Any]:
    """The certificates in a file; none, if it cannot be used."""
    try:
        return _certificates(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []


def _begin(certificate: Any) -> datetime:
    # The naive properties are all that cryptography before 42 has.
    begin = getattr(certificate, "not_valid_before_utc", None)
    return begin or certificate.not_valid_before.replace(tzinfo=UTC)


def _end(certificate: Any) -> datetime:
    end = getattr(certificate, "not_valid_after_utc", None)
    return end or certificate.not_valid_after.replace(tzinfo=UTC)


def _extension(certificate: Any, kind: Any) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_authority(certificate: Any) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _names(certificate: Any) -> list[str]:
    """What the certificate is valid for, as the role tls writes it. Common names count for nothing (RFC 9525, section 2)."""
    known = _extension(certificate, x509.SubjectAlternativeName) or ()
    kinds = ((x509.DNSName, "DNS"), (x509.IPAddress, "IP"))
    return [f"{prefix}:{name.value}" for name in known for kind, prefix in kinds if isinstance(name, kind)]


def _issued(certificate: Any, authorities: list[Any]) -> bool:
    """Whether one of the authorities is the one that the certificate names as its own."""
    own = _extension(certificate, x509.AuthorityKeyIdentifier)
    keys = [_extension(authority, x509.SubjectKeyIdentifier) for authority in authorities]
    return own is not None and own.key_identifier in [key.digest for key in keys if key is not None]


def _missing(path: Path, name: str, found: list[Any]) -> str:
    if not found:
        return "there is no certificate"
    return "" if (path / f"{name}.key").is_file() else "there is no key"


def _stale(certificate: Any, key: Path, names: list[str], authorities: list[Any], limit: datetime) -> str:
    if next(_key_faults(certificate, key.read_text(encoding="ascii")), None):
        return "the key is not its own"
    if not _issued(certificate, authorities):
        return "another authority signed it"
    if _end(certificate) < limit:
        return f"ends on {_end(certificate):%Y-%m-%d}"
    if {_canonical(name) for name in _names(certificate)} != {_canonical(name) for name in names}:
        return "it names others"
    return ""


def _canonical(name: str) -> str:
    """DNS:name or IP:address, written in the one way that can be compared."""
    kind, _colon, value = name.partition(":")
    return f"{kind}:{ipaddress.ip_address(value) if _is_address(value) else value.lower()}"


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _time_faults(chain: list[Any], now: datetime) -> Iterator[str]:
    for number, certificate in enumerate(chain):
        what = "the certificate" if number == 0 else f"certificate {number + 1} of the chain"
        if _end(certificate) <= now:
            yield f"{what} ended on {_end(certificate):%Y-%m-%d %H:%M} UTC: renew it"
        if _begin(certificate) > now:
            yield f"{what} begins on {_begin(certificate):%Y-%m-%d %H:%M} UTC: wait, or correct the clock of the control node"


def _key_faults(certificate: Any, text: Any) -> Iterator[str]:
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        yield f"the RSA key has {public.key_size} bits, clients want {MIN_RSA_BITS} or more: make a new key"
    if text is None:
        return
    try:
        key = serialization.load_pem_private_key(str(text).encode(), password=None)
    except TypeError:
        yield "the private key is encrypted, and a server starts without a person: give it without its passphrase"
    except ValueError:  # what it says may hold a part of the key
        yield "the private key cannot be read: give the text that begins with -----BEGIN PRIVATE KEY-----"
    else:
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != public.public_bytes(*form):
            yield "the private key does not belong to the certificate: give the key that it was requested with"


def _name_faults(certificate: Any, names: Iterable[str]) -> Iterator[str]:
    known = [_canonical(name) for name in _names(certificate)]
    lacking = [name for name in names if not any(_covers(pattern, str(name)) for pattern in known)]
    if lacking:
        yield f"the certificate is valid for {', '.join(known) or 'no name'}, not for {', '.join(lacking)}: issue one that names it"


def _covers(pattern: str, name: str) -> bool:
    """RFC 9525, section 6.3: a wildcard is the whole leftmost label, and stands for one label."""
    kind, _colon, value = pattern.partition(":")
    name = _canonical(f"{kind}:{name.rstrip('.')}").partition(":")[2]
    if _is_address(name) or kind != "DNS":
        return kind == "IP" and value == name
    return value in (name, "*." + name.partition(".")[2])


def _order_faults(chain: list[Any]) -> Iterator[str]:
    for number, (certificate, issuer) in enumerate(itertools.pairwise(chain), start=1):
        if certificate.issuer != issuer.subject:
            yield (
                f"certificate {number + 1} of the chain did not sign the one before it: "
                "give the server's own certificate first, then each issuer in turn"
            )
            return
