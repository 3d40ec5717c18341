"""The box's servers and clients: HTTP/1.1 byte protocol, aiohttp API, HTTP/3."""
