"""The way to a server: which ones are served, what TLS accepts, and what an error means."""

import ssl

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import mysql


@pytest.mark.parametrize("version", ["8.4.0", "8.4.7-commercial", "9.7.4-2", "10.0.1"])
def test_mysql_of_today_is_served(version):
    assert mysql.unsupported(version) is None


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("11.8.3-MariaDB-0+deb13u1 from Debian", "the server is MariaDB"),
        ("5.5.5-10.11.6-MariaDB", "the server is MariaDB"),
        ("8.0.46-0ubuntu0", "8.4 or later is needed"),
        ("8.3.0", "8.4 or later is needed"),
        ("unknown", "is not MySQL's"),
    ],
)
def test_what_differs_in_what_matters_is_refused(version, reason):
    assert reason in mysql.unsupported(version)


def test_tls_accepts_what_mysqld_accepts():
    strict = mysql.tls(None, True)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not strict.verify_flags & ssl.VERIFY_X509_STRICT
    assert mysql.tls(None, False).verify_mode == ssl.CERT_NONE


@pytest.mark.skipif(not ssl.get_default_verify_paths().cafile, reason="no authorities on this machine")
def test_an_authority_counts_even_where_the_name_does_not():
    context = mysql.tls(ssl.get_default_verify_paths().cafile, False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


def refused_certificate():
    error = Exception(2003, "Can't connect to MySQL server on '192.0.2.4'")
    error.original_exception = ssl.SSLCertVerificationError(1, "certificate verify failed")
    return error


@pytest.mark.parametrize(
    ("raised", "number"),
    [
        (Exception(1045, "Access denied"), 1045),
        (refused_certificate(), 2026),
        (ssl.SSLError(1, "wrong version number"), 2026),
        (OSError("gone"), 0),
        (Exception(), 0),
    ],
)
def test_an_error_keeps_its_number_and_every_tls_fault_has_one(raised, number):
    assert mysql.MySQLError.of(raised).number == number
