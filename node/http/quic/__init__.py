"""HTTP/3 both ways: one UDP socket, many sessions, and QUIC engines behind one narrow interface.

``session.py`` is the interface; only ``qh3_engine.py`` and ``aioquic_engine.py`` know a library.
``link.py`` drives a session over an ``Endpoint`` (``datagram.py``), ``server.py`` tells datagrams
apart and ``peer.py`` answers requests; ``channel.py`` is the client.
"""
