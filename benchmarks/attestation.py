"""Quotes verified per second, cold and warm, against dcap-qvl 0.7.0 on the same quote in the same run.

Warm remembers certificate and collateral checks by digest (`attestation.verify.Verifier`); the quote is one of
the software platform's, so that no file from elsewhere is needed.
"""
