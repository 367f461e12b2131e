"""The REST API: parse a request, call one function, render.

bodies          from a request's body to a typed input
parameters      query parameters as typed objects, and pagination
cursors         where a page of a list ends
vector_json     large bodies, their vectors read by a kernel
json_values     how many values a body has, before it is parsed
bad_characters  where in a body the characters are that are no JSON
errors          every error body; which error has which status
hints           what somebody probably meant
idempotency     requests that are answered once, and repeated from what was stored
middleware      admission, and errors outside of any view
sessions        the user of a session, for REST framework's pages
renderers       JSON by orjson, REST framework's pages for people
json_schema     JSON Schemas of pydantic models
openapi         the schema: pydantic models, problem responses; imported when it is asked for
v1              the endpoints
mcp             agents, by the Model Context Protocol
"""
