"""Certificates of nodes, on disk as a node is given them, signed by an authority that a test made."""

from __future__ import annotations

from pathlib import Path

import trustme

from jadevectordb.adapters.nats_config import TlsFiles


def tls_files(folder: Path, authority: trustme.CA, *names: str, trusted: trustme.CA | None = None) -> TlsFiles:
    """In a new folder: a certificate that `authority` signed, of a node that trusts `trusted`, else that authority too."""
    folder.mkdir()
    issued = authority.issue_cert(*names or ("127.0.0.1",))
    made = TlsFiles(certificate=folder / "certificate.pem", key=folder / "key.pem", authority=folder / "ca.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(made.certificate), append=number > 0)
    issued.private_key_pem.write_to_path(str(made.key))
    (trusted or authority).cert_pem.write_to_path(str(made.authority))
    return made
