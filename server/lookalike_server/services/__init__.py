"""The services of the API, one module each: a message in, rooms asked, a message out."""
