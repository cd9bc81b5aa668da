"""The key that signs: made on this machine at the first use, kept private, known to nobody.

A signature by it proves that a file is unchanged, not who made it: verifiers call the signer untrusted, and
rightly. The root key is forgotten at once; only the signing key is stored.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from talker.atomic import atomic_path
from talker.errors import CheckpointError, ProvenanceError

log = logging.getLogger(__name__)

_FILE = "signer.pem"
_YEARS = 10
"""Without a time-stamp server a manifest is only as old as its certificate is valid."""
_KEY_END = b"-----END PRIVATE KEY-----\n"


@dataclass(frozen=True, repr=False)
class Identity:
    """PEM texts: the PKCS#8 private key, and the certificates, leaf first."""

    key: bytes
    chain: bytes


def default_folder() -> Path:
    """``identity`` in the cache folder (``TALKER_CACHE``)."""
    return Path(os.environ.get("TALKER_CACHE") or Path.home() / ".cache" / "talker") / "identity"


def load_identity(folder: Path | None = None) -> Identity:
    """The identity stored in ``folder``; made there if there is none, or it is damaged or about to expire.

    Raises:
        ProvenanceError: ``provenance.key``: the folder cannot be used.
    """
    path = (folder or default_folder()) / _FILE
    identity = _read(path)
    if identity is None:
        identity = _new_identity()
        try:
            _write(path, identity)
        except (OSError, CheckpointError) as error:
            raise ProvenanceError(
                "provenance.key",
                "The key for marking videos cannot be stored.",
                expected="A writable cache folder.",
                todo="Set TALKER_CACHE to a folder that can be written.",
            ) from error
    return identity


def _read(path: Path) -> Identity | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        blob = path.read_bytes()
    except OSError:
        return None
    key, end, chain = blob.partition(_KEY_END)
    try:
        private = load_pem_private_key(key + end, password=None)
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, TypeError, IndexError):
        log.warning("the signing key was damaged and is replaced")
        return None
    fits = isinstance(private, EllipticCurvePrivateKey) and private.public_key() == leaf.public_key()
    if not fits or leaf.not_valid_after_utc < datetime.now(UTC) + timedelta(days=30):
        return None
    if os.name != "nt" and path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return Identity(key + end, chain)


def _write(path: Path, identity: Identity) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_path(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(identity.key + identity.chain)


def _new_identity() -> Identity:
    """ES256 leaf for signing under a root made for it alone. The names carry no personal data."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def subject(name: str) -> x509.Name:
        fields = ((NameOID.COMMON_NAME, name), (NameOID.ORGANIZATION_NAME, "talker (this machine)"))
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in fields])

    def usage(*on: str) -> x509.KeyUsage:
        names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        names += " key_cert_sign crl_sign encipher_only decipher_only"
        return x509.KeyUsage(**{name: name in on for name in names.split()})

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, start = subject("talker local root"), datetime.now(UTC) - timedelta(days=1)
    base = (
        x509.CertificateBuilder()
        .issuer_name(root_name)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * _YEARS))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )
    )
    root = (
        base.subject_name(root_name)
        .public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        base.subject_name(subject("talker local signer"))
        .public_key(leaf_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    key = leaf_key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
    return Identity(key, b"".join(c.public_bytes(ser.Encoding.PEM) for c in (leaf, root)))
