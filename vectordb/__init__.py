"""The Django project: settings, root URLs, command line, WSGI entry point."""

__version__ = "0.1.0"
