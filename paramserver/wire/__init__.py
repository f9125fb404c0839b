"""What travels: generated messages, and the codec between them and events, arrays and errors.

``numbers`` checks single fields; ``jobs``, ``replicas``, ``orders`` and ``status`` turn events into messages
and back (``encode_x`` and ``decode_x``); ``transfer`` turns arrays into messages full of chunks and back;
``receive`` puts chunks into arrays and refuses what does not fit; ``refusals`` turns errors into gRPC
statuses and back; ``memory`` is a setting that makes transfers faster. A decoder raises ``RequestError`` for
what no honest sender would send.
"""
