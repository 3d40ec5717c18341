"""The trustless IPFS gateway: verified blocks and CARs over HTTP, from what this box holds."""
