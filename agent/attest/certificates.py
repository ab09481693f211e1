"""Any X.509 certificate as `gpupool attest show` prints it, and what stands in a file of PEM.

Of every PKI, not only those that are verified here; nothing is verified.
"""

from __future__ import annotations

import base64
import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agent.attest.values import Tree, moment
from agent.errors import OperationError

PEM_HEAD = b"-----BEGIN"
CERTIFICATES_MAX = 16

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([0-9A-Za-z+/=\s]*)-----END CERTIFICATE-----")


def pem_blocks(text: bytes) -> list[bytes]:
    """The DER of the certificates in PEM; what stands between them does not count.

    Raises:
        OperationError: none, more than 16, one that is cut short, or no base64.
    """
    bodies = _BLOCK.findall(text)
    if not bodies or len(bodies) != text.count(PEM_HEAD):
        raise OperationError("certificates: not whole certificates in PEM")
    if len(bodies) > CERTIFICATES_MAX:
        raise OperationError(f"certificates: {len(bodies)}, at most {CERTIFICATES_MAX} are read")
    try:
        return [base64.b64decode(b"".join(body.split()), validate=True) for body in bodies]
    except ValueError as error:
        raise OperationError("certificates: the PEM is not base64") from error


def x509_value(der: bytes) -> Tree:
    """Whom a certificate names, when it is valid, and the type of its key.

    Raises:
        OperationError: not a certificate.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
            "not_before": moment(int(certificate.not_valid_before_utc.timestamp())),
            "not_after": moment(int(certificate.not_valid_after_utc.timestamp())),
            "key": _key_type(certificate),
        }
    # Whatever goes wrong in the library, which reads each field when it is asked for, means no certificate.
    except Exception as error:
        raise OperationError("certificate: not an X.509 certificate in DER or PEM") from error


def _key_type(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    match key:
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case _:
            return "another"
