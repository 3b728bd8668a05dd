"""TLS between nodes: both sides show a certificate that the cluster's own authority signed, and speak TLS 1.3.

The asker also checks that the certificate names the host it connected to; the answerer only checks who signed, because a node
may come from any address.
"""

from __future__ import annotations

import ssl

from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.model.errors import ErrorCode, JadeError


def asking_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises INVALID_ARGUMENT naming the files that can't be used."""
    return _context(files, ssl.Purpose.SERVER_AUTH)


def answering_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises INVALID_ARGUMENT naming the files that can't be used."""
    return _context(files, ssl.Purpose.CLIENT_AUTH)


def _context(files: TlsFiles, purpose: ssl.Purpose) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(purpose, cafile=str(files.authority))
        context.load_cert_chain(str(files.certificate), str(files.key))
    except (OSError, ssl.SSLError) as error:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"the TLS files {files.certificate}, {files.key} and {files.authority} can't be used ({error})",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    return context
