"""The providers, one module each. Only `registry` imports them; their packages may not be installed."""
