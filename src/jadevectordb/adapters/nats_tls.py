"""TLS between nodes: both sides show a certificate that the cluster's own authority signed."""

from __future__ import annotations

import ssl

from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.model.errors import ErrorCode, JadeError


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises INVALID_ARGUMENT naming the file that is missing or no certificate."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.authority))
        context.load_cert_chain(str(files.certificate), str(files.key))
    except (OSError, ssl.SSLError) as error:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"the TLS files {files.certificate}, {files.key} and {files.authority} cannot be used ({error})",
        ) from error
    return context
