"""What is wrong with a certificate that somebody brings, and what a private authority has to do."""

import datetime
import ipaddress

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import certificates
from ansible_collections.foobar.webstack.plugins.module_utils.certificates import faults, work
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505
NAMES = ["DNS:www.foobar.com", "IP:192.0.2.14"]


class Certificate:
    """A certificate with its key, signed by another or by itself."""

    def __init__(self, name="server", names=(), issuer=None, key=None, begin=-1, end=30, authority=False):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = issuer or self
        known = [x509.IPAddress(ipaddress.ip_address(n[3:])) if n[:3] == "IP:" else x509.DNSName(n[4:]) for n in names]
        builder = (
            x509.CertificateBuilder(issuer.subject, self.subject, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(NOW + begin * DAY)
            .not_valid_after(NOW + end * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                critical=False,
            )
        )
        if known:
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        signed = builder.sign(issuer.key, hashes.SHA256())
        self.text = signed.public_bytes(serialization.Encoding.PEM).decode()

    def key_text(self, passphrase=None):
        protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        ).decode()

    def put(self, directory, name):
        (directory / f"{name}.crt").write_text(self.text)
        (directory / f"{name}.key").write_text(self.key_text())


GOOD = Certificate(names=NAMES)


def found(certificate, key=None, names=()):
    return faults(certificate, key, names, now=NOW)


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("www.foobar.com",),
        ("WWW.Foobar.Com.", "192.0.2.14"),
    ],
)
def test_a_good_certificate_has_no_faults(names):
    assert found(GOOD.text, GOOD.key_text(), names) == []


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("DNS:*.foobar.com", "www.foobar.com", True),
        ("DNS:*.foobar.com", "foobar.com", False),
        ("DNS:*.foobar.com", "a.b.foobar.com", False),
        ("DNS:*.com", "com", False),
        ("DNS:foobar.com", "www.foobar.com", False),
        ("DNS:192.0.2.14", "192.0.2.14", False),
        ("IP:2001:db8::1", "2001:DB8:0::1", True),
        ("IP:192.0.2.14", "192.0.2.15", False),
    ],
)
def test_a_name_is_covered_as_clients_verify_it(pattern, name, covered):
    assert (found(Certificate(names=[pattern]).text, names=[name]) == []) is covered


@pytest.mark.parametrize(
    ("text", "key", "names", "said"),
    [
        (Certificate(end=0).text, None, (), "ended on 2026-06-01 12:00 UTC: renew it"),
        (Certificate(begin=2).text, None, (), "begins on 2026-06-03 12:00 UTC"),
        (GOOD.text, Certificate().key_text(), (), "does not belong to the certificate"),
        (GOOD.text, GOOD.key_text(b"sesame"), (), "is encrypted"),
        (GOOD.text, "", (), "the private key cannot be read"),
        (GOOD.text, "sesame", (), "the private key cannot be read"),
        (GOOD.text, None, ["foobar.com"], "valid for DNS:www.foobar.com, IP:192.0.2.14, not for foobar.com"),
        (Certificate("www.foobar.com").text, None, ["www.foobar.com"], "valid for no name, not for www.foobar.com"),
        (Certificate(key=SHORT).text, None, (), "has 1024 bits"),
        ("", None, (), "this is no certificate"),
        (None, None, (), "this is no certificate"),
        (GOOD.key_text(), None, (), "this is no certificate"),
        (GOOD.text.replace("M", "N", 1), None, (), "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 80 else "",
)
def test_each_fault_is_said_with_its_remedy_and_without_the_key(text, key, names, said):
    lines = found(text, key, names)
    assert len(lines) == 1
    assert said in lines[0]
    assert ": " in lines[0]
    assert "sesame" not in lines[0]
    assert not key or key not in lines[0]


def test_all_faults_are_reported_at_once():
    assert len(found(Certificate(end=-0.5, names=NAMES).text, Certificate().key_text(), ["x.org"])) == 3


def test_a_chain_stands_in_the_order_of_its_signatures():
    root = Certificate("root", authority=True)
    middle = Certificate("middle", issuer=root, authority=True)
    leaf = Certificate("leaf", issuer=middle)
    assert found(leaf.text + middle.text + root.text) == []
    assert "did not sign the one before it" in found(leaf.text + root.text)[0]
    ended = Certificate("middle", issuer=root, key=middle.key, end=0, authority=True)
    assert "certificate 2 of the chain ended" in found(leaf.text + ended.text)[0]


def test_a_bundle_of_authorities_is_no_chain():
    assert found(Certificate("one", authority=True).text + Certificate("two", authority=True).text) == []


def test_without_its_library_the_filter_names_the_remedy(monkeypatch):
    monkeypatch.setattr(certificates, "x509", None)
    with pytest.raises(ValueError, match="pip install cryptography"):
        found(GOOD.text)


@pytest.fixture
def authority(tmp_path):
    """A directory that holds an authority and a certificate of its own for two names."""
    root = Certificate("private", end=1000, authority=True)
    root.put(tmp_path, "ca")
    Certificate("web", NAMES, issuer=root, end=100).put(tmp_path, "web")
    return root


def due(path, names=NAMES, **options):
    """What is to be issued, name and reason, when the certificate web is wanted."""
    result = work(str(path), [{"name": "web", "subject_alt_names": names}], now=NOW, **options)
    return [(item["name"], item["reason"]) for item in result["due"]]


def test_nothing_is_due_when_all_is_as_wanted(tmp_path, authority):
    assert due(tmp_path) == []
    assert due(tmp_path, list(reversed(NAMES)), renew_days=99) == []


def test_in_an_empty_directory_everything_is_due_the_authority_first(tmp_path):
    assert due(tmp_path / "missing") == [("ca", "there is no certificate"), ("web", "there is no certificate")]


def test_a_certificate_is_due_when_it_ends_soon_or_names_others(tmp_path, authority):
    assert due(tmp_path, renew_days=101) == [("web", "ends on 2026-09-09")]
    assert due(tmp_path, NAMES[:1]) == [("web", "it names others")]
    assert due(tmp_path, every=True) == [("web", "all are issued again")]


def test_a_certificate_without_its_key_or_of_another_authority_is_due(tmp_path, authority):
    Certificate().put(tmp_path, "other")
    (tmp_path / "other.key").rename(tmp_path / "web.key")
    assert due(tmp_path) == [("web", "the key is not its own")]
    (tmp_path / "web.key").unlink()
    assert due(tmp_path) == [("web", "there is no key")]
    Certificate("web", NAMES).put(tmp_path, "web")
    assert due(tmp_path) == [("web", "another authority signed it")]


def test_an_authority_that_ends_keeps_what_it_has_signed_and_a_lost_one_does_not(tmp_path, authority):
    assert due(tmp_path, renew_days=2000)[0] == ("ca", "ends on 2029-02-25")
    Certificate("private", key=authority.key, end=10, authority=True).put(tmp_path, "ca")
    assert due(tmp_path) == [("ca", "ends on 2026-06-11")]
    (tmp_path / "ca.key").unlink()
    assert due(tmp_path) == [("ca", "there is no key"), ("web", "another authority signed it")]


def test_of_two_authorities_the_first_signs(tmp_path, authority):
    other = Certificate("private", end=10, authority=True)
    (tmp_path / "ca.crt").write_text(authority.text + other.text)
    assert due(tmp_path) == []
    (tmp_path / "ca.crt").write_text(other.text + authority.text)
    assert due(tmp_path) == [("web", "another authority signed it")]
    assert work(str(tmp_path), [], now=NOW)["authorities"] == 2


def test_what_nobody_wants_goes_but_for_what_this_authority_has_not_issued(tmp_path, authority):
    Certificate("mine").put(tmp_path, "mine")
    Certificate("next", authority=True).put(tmp_path, "ca-next")
    (tmp_path / "notes.crt").write_text("none")
    assert work(str(tmp_path), [], now=NOW)["gone"] == ["web"]
    assert work(str(tmp_path), [{"name": "web", "subject_alt_names": NAMES}], now=NOW)["gone"] == []
