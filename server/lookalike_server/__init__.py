"""The Lookalike server."""
