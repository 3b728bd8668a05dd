"""Who asks and what they may: accounts, sessions, API keys, rights, limits and the audit log. Nothing here knows a transport."""
