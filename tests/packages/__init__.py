"""The package and the container image, as users get them: programs that make targets run, no tests of pytest."""
