"""Which root certificate counts on which network. Pinned here, never taken from a peer or a quote.

On TON's mainnet and testnet only Intel's root counts. A private network (the devnet) may name the root of
a software platform in its configuration; whoever holds that root's key can make any evidence.

Source: Intel SGX Root CA, https://certificates.trustedservices.intel.com/IntelSGXRootCA.der (public);
global ids: TON blockchain configuration parameter 19.
"""

from __future__ import annotations

import base64
import hashlib

from attestation.errors import RootRefusedError

PUBLIC_NETWORKS = frozenset({-239, -3})
"""Global ids of TON's mainnet and testnet."""

INTEL_ROOT_SHA256 = bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")
INTEL_ROOT = base64.b64decode(
    "MIICjzCCAjSgAwIBAgIUImUM1lqdNInzg7SVUr9QGzknBqwwCgYIKoZIzj0EAwIwaDEaMBgGA1UEAwwRSW50ZWwgU0dYIFJvb3Qg"
    "Q0ExGjAYBgNVBAoMEUludGVsIENvcnBvcmF0aW9uMRQwEgYDVQQHDAtTYW50YSBDbGFyYTELMAkGA1UECAwCQ0ExCzAJBgNVBAYT"
    "AlVTMB4XDTE4MDUyMTEwNDUxMFoXDTQ5MTIzMTIzNTk1OVowaDEaMBgGA1UEAwwRSW50ZWwgU0dYIFJvb3QgQ0ExGjAYBgNVBAoM"
    "EUludGVsIENvcnBvcmF0aW9uMRQwEgYDVQQHDAtTYW50YSBDbGFyYTELMAkGA1UECAwCQ0ExCzAJBgNVBAYTAlVTMFkwEwYHKoZI"
    "zj0CAQYIKoZIzj0DAQcDQgAEC6nEwMDIYZOj/iPWsCzaEKi71OiOSLRFhWGjbnBVJfVnkY4u3IjkDYYL0MxO4mqsyYjlBalTVYxF"
    "P2sJBK5zlKOBuzCBuDAfBgNVHSMEGDAWgBQiZQzWWp00ifODtJVSv1AbOScGrDBSBgNVHR8ESzBJMEegRaBDhkFodHRwczovL2Nl"
    "cnRpZmljYXRlcy50cnVzdGVkc2VydmljZXMuaW50ZWwuY29tL0ludGVsU0dYUm9vdENBLmRlcjAdBgNVHQ4EFgQUImUM1lqdNInz"
    "g7SVUr9QGzknBqwwDgYDVR0PAQH/BAQDAgEGMBIGA1UdEwEB/wQIMAYBAf8CAQEwCgYIKoZIzj0EAwIDSQAwRgIhAOW/5QkR+S9C"
    "iSDcNoowLuPRLsWGf/Yi7GSX94BgwTwgAiEA4J0lrHoMs+Xo5o/sX6O9QWxHRAvZUGOdRQ7cvqRXaqI="
)
"""DER of Intel's SGX Root CA, valid until the end of 2049. A test compares it with the digest."""


def root_for(network_global_id: int, software_root: bytes | None = None) -> bytes:
    """Return the root (DER) to verify quotes with on a network: Intel's, or `software_root` if it is given.

    Raises:
        RootRefusedError: another root than Intel's on a public network.
    """
    root = INTEL_ROOT if software_root is None else software_root
    require_root_allowed(network_global_id, root)
    return root


def require_root_allowed(network_global_id: int, root: bytes) -> None:
    """Raise `RootRefusedError` if `root` (DER) is not Intel's and the network is a public one."""
    digest = hashlib.sha256(root).digest()
    if network_global_id in PUBLIC_NETWORKS and digest != INTEL_ROOT_SHA256:
        raise RootRefusedError(
            f"root {digest.hex()[:16]}...: network {network_global_id} is public, only Intel's root counts there; "
            "remove the software platform from the configuration"
        )
