"""Search: what answers a query, from one read snapshot of the database and one view of the library.

snapshots    one state of the database, for as long as a query takes
loading      from rows to a view, and from changes to the next one
cache        the views of this process, brought up to date before they answer
specs        what a query may say
services     queries: snapshot -> view -> engine -> rows
stats        what there is to know about a library and its index
admin        the index of a library on the admin's pages
planning     what is to be done about a library's index files
jobs         making one segment of others, in a thread
indexing     sealing, merging and rebuilding of all libraries
reembedding  moves libraries to other embedding models
maintenance  pruning the change log
"""
