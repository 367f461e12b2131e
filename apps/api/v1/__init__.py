"""Version 1 of the REST API.

urls       paths
libraries, documents, chunks, query, transfer, jobs, backups, keys, audit  the endpoints
base       what they share
operation  what the schema says of a method
schemas    the shapes of their answers, for the schema
examples   the bodies that the schema and the browsable API show
"""
