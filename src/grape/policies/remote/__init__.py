"""Policies of servers: messages, addresses, tokens, the connection of a client, and the type ``ws://host:port``.

``packing`` turns values and arrays into bytes and back, ``messages`` says what travels, ``address`` where to and with
which token; ``connection`` keeps a connection up, ``policy`` makes a policy of it. The server is ``grape.serving``.
"""
