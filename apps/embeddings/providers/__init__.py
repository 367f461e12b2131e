"""The providers, one module each. Only `registry` imports them; their packages may not be installed.

wordllama              static embeddings of word pieces, from the files of a package
hashing                hashed words and parts of words; needs nothing, knows no meaning
sentence_transformers  models on this machine
openai                 OpenAI's API, and the many servers that speak it
cohere                 Cohere's API
network                what the last two share: errors of HTTP in words
"""
