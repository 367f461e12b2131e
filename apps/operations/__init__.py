"""Running the server: health, the admin's middleware, the sample, and the management commands.

views       /health and /ready
middleware  Django's middleware for people, kept off the API
sample      the library that is shipped
server      gunicorn with the maintenance process beside it
management  the commands
"""
