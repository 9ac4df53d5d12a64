"""Front-ends: processes that take the calls of gRPC for an engine in another one.

    front-end        HTTP/2, TLS, limits of size and number; no services, no messages: bytes
       | bus         a socket pair: many calls, many frames a write
    engine           tokens, quotas, the services, and all that stands behind them

One interpreter answers a few thousand calls a second, most of that time in gRPC. Front-ends take that off the
engine, which stays the only one: one road, one cache, one writer of each collection.

    frames           what is said on the bus
    bus              how it is sent
    line             one call on it, at either end; who is slow holds up his own
    front            a front-end's end of the calls; __main__ is its process
    answering        the engine's end: the same interceptor and services, called as gRPC would
    process          one front-end as the engine sees it: started, told, gone
    pulse            whether it still answers
    server           all of them, as one grpc.aio.Server
"""
