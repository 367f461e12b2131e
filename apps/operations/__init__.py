"""Running the server: the HTTP edge, health, the admin's middleware, the sample, and the management commands."""
