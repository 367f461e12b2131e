"""The HTTP edge: what stands between clients and the WSGI application under `manage.py serve`.

gunicorn looks after processes, uvicorn after connections. A request is handled when all of it is here, in one of the
worker's threads. A client that is slow, also on purpose, occupies a connection and memory, which are limited, but no
thread.

worker       gunicorn's worker class, which runs uvicorn
listener     each worker's share of the connections
connections  uvicorn's protocol within limits of bytes and time
application  the ASGI application around the WSGI one
uploads      bodies of imports that go to files
threads      the threads that run requests
notes        the line of a request in the log, and its counts
streams      answers that are made while they are sent
"""
