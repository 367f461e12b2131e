"""The media type that REST framework's pages offer for bodies; the bodies themselves are read by `bodies.parse`."""

from rest_framework.parsers import BaseParser


class JSONBodyParser(BaseParser):
    """Names the media type and parses nothing."""

    media_type = "application/json"
