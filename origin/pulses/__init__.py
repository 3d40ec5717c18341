"""What viewers sign, as it comes in: admitted, made durable, and read again as evidence."""
