"""Certificates for tests: an authority of their own, and what it signs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: No secret: Java opens no truststore without one.
TRUSTSTORE_PASSWORD = "changeit"

_DAY = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as files that only we read: PEM, both in one, and PKCS#12."""

    certificate: Path
    key: Path
    both: Path
    pkcs12: Path


class Authority:
    """Signs certificates; its own stands in `certificate` and, as Java wants it, in `truststore`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        made = (
            _template(self._name, self._name, self._key, dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_CA_USAGE, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write(self.certificate, _pem(made))
        self._made = made
        self.truststore = folder / "ca.p12"
        trusted = pkcs12.PKCS12Certificate(made, name.encode())
        hidden = serialization.BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode())
        _write(self.truststore, pkcs12.serialize_java_truststore([trusted], hidden))

    def issue(
        self, name: str, *, host: str | None = None, expired: bool = False, password: str = ""
    ) -> Identity:
        """Sign a certificate for `name`; `host` is the address of a server.

        With `password` the key is encrypted, and so is PKCS#12. An `expired` one was valid until
        yesterday.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _template(_common_name(name), self._name, key, -_DAY if expired else 7 * _DAY)
        use = ExtendedKeyUsageOID.SERVER_AUTH if host else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if host:
            address = x509.IPAddress(ipaddress.ip_address(host))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        hidden: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden
        )
        stem = self.folder / f"{name}{'-expired' if expired else ''}"
        found = Identity(*(stem.with_name(f"{stem.name}.{kind}") for kind in _KINDS))
        _write(found.certificate, _pem(made))
        _write(found.key, secret)
        _write(found.both, secret + _pem(made))
        _write(
            found.pkcs12,
            pkcs12.serialize_key_and_certificates(name.encode(), key, made, [self._made], hidden),
        )
        return found


_KINDS = ("crt", "key", "pem", "p12")

_CA_USAGE = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
    encipher_only=False, decipher_only=False,
)  # fmt: skip


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _template(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 5 * _DAY)
        .not_valid_after(now + life)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
