"""Who asks, and what they may: the identity of a request and its admission.

This layer lies below the libraries, so that every other one can log under the id of the request at hand.
"""
