"""Models in a process of their own, which does nothing but compute.

    server's process                                      the model's process
    replica ─ ApartDevice ── order, "so many pixels" ──▶  Device, one batch at a time
                    └─ pixels in memory of both ─ ─ ─ ─ ─ ─ ▲ descriptors come back

On a CPU a forward pass is hundreds of short operations, on threads that wait for each other. Among decoders
and an event loop each operation waits for Python's lock, and the threads for a core; by themselves they wait
busily and are quick. And what ends the process, memory that runs out or a fault in native code, ends one
batch: another process is started.
"""
