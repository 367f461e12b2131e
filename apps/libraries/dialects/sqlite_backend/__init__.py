"""Django's SQLite backend for a database whose files may go away under a running server."""
