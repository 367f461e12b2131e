"""The read side: a view of each library in memory, kept as the database is, and the queries that it answers."""
