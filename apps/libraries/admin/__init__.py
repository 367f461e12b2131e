"""The admin: libraries, documents and chunks, to look at, to correct and to delete."""

from apps.libraries.admin import pages

__all__ = ["pages"]
