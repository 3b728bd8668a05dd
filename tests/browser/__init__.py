"""The web console and the API reference, clicked through in a real Chromium against real servers."""
