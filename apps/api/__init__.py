"""The HTTP edge: parse a request, call one service, render.

bodies      from request bytes to a typed input
errors      every error body; which error has which status
middleware  request ids, host check, and errors outside of any view
pagination  limit and cursor
renderers   JSON by orjson, the browsable API for people
openapi     the schema: pydantic models, problem responses
v1/         the endpoints
"""
