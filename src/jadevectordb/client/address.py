"""Where the server is: one URL, taken apart and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from jadevectordb.model.errors import ErrorCode, JadeError

URL_DEFAULT = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Address:
    """path: put before every path of the API, without a slash at its end; where a proxy serves it below a folder."""

    host: str
    port: int
    is_tls: bool
    path: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises INVALID_ARGUMENT saying what a URL looks like."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except (ValueError, AttributeError):
            raise _invalid(f"{url!r:.200} is no URL") from None
        if parts.scheme not in ("http", "https"):
            raise _invalid(f"{url!r:.200} does not begin with http:// or https://")
        if not parts.hostname or not parts.hostname.isascii():
            raise _invalid(f"{url!r:.200} names no server")
        if parts.username is not None or parts.password is not None:
            # Not repeated in the message, and not accepted: URLs end up in logs.
            raise _invalid("the URL holds a name or password; give them as user= and password= instead")
        if parts.query or parts.fragment or not parts.path.isascii() or any(c.isspace() for c in parts.path):
            raise _invalid(f"{url!r:.200} holds more than a server and a path")
        is_tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def _invalid(why: str) -> JadeError:
    return JadeError(
        ErrorCode.INVALID_ARGUMENT, f"The server's URL is not right: {why}. Write it as in {URL_DEFAULT!r}."
    )
