# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Does a password belong to what MySQL stores for caching_sha2_password?

MySQL keeps ``$A$`` + three hexadecimal digits (thousands of rounds) + ``$`` + 20 bytes of salt + 43 characters of
SHA-256-crypt, see https://www.akkadia.org/drepper/SHA-crypt.txt. Unlike there, the salt is 20 bytes long and any byte
may stand in it.
"""

from __future__ import annotations

import hashlib
import hmac
import re

STORED = re.compile(rb"\$A\$([0-9A-Fa-f]{3})\$(.{20})([./0-9A-Za-z]{43})", re.DOTALL)
ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _repeat(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _base64(digest: bytes) -> bytes:
    """Step 22: bytes 0, 10, 20, then 21, 1, 11, then 12, 22, 2 and so on, six bits at a time from the lowest."""
    order, first, second, third = [], 0, 10, 20
    for _triple in range(10):
        order.append((digest[first] << 16 | digest[second] << 8 | digest[third], 4))
        first, second, third = third + 1, first + 1, second + 1
    order.append((digest[31] << 8 | digest[30], 3))
    return bytes(ALPHABET[number >> 6 * place & 63] for number, length in order for place in range(length))


def sha256_crypt(password: bytes, salt: bytes, rounds: int) -> bytes:
    """The 43 characters of SHA-256-crypt; step numbers are those of the specification."""
    size = len(password)
    inner = hashlib.sha256(password + salt + password).digest()  # 4-8
    outer = hashlib.sha256(password + salt + _repeat(inner, size))  # 1-3, 9, 10
    bits = size
    while bits:  # 11
        outer.update(inner if bits & 1 else password)
        bits >>= 1
    digest = outer.digest()  # 12
    sequence_p = _repeat(hashlib.sha256(password * size).digest(), size)  # 13-16
    sequence_s = _repeat(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))  # 17-20
    for number in range(rounds):  # 21
        block = sequence_p if number & 1 else digest
        if number % 3:
            block += sequence_s
        if number % 7:
            block += sequence_p
        digest = hashlib.sha256(block + (digest if number & 1 else sequence_p)).digest()
    return _base64(digest)


def password_matches(stored: bytes, password: str) -> bool:
    """True where ``stored`` (mysql.user.authentication_string of caching_sha2_password) was made from ``password``."""
    match = STORED.fullmatch(stored)
    if not match:
        return False
    thousands, salt, digest = match.groups()
    return hmac.compare_digest(sha256_crypt(password.encode(), salt, int(thousands, 16) * 1000), digest)
