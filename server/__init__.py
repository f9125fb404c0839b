"""The server program: shards behind locks, the coordinator in the first server, and gRPC around them.

Start with ``host`` (the lock), then ``service`` (a call becomes an event, an effect becomes its answer).
``requests`` holds what waits, ``coordination`` carries out what the coordinator decides, ``links`` and
``link`` are the two ends between servers, ``finish`` is what happens once the job has ended, ``program`` puts
all of it together.
"""
