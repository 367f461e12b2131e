"""Version 1 of the REST API.

urls       paths
libraries  documents  chunks  query  keys   the endpoints
base       what they share
schemas    the shapes of their answers, for the schema
examples   the bodies that the schema and the browsable API show
"""
