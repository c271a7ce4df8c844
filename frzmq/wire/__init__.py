"""The wire: bytes to values and back, pure (no IO, no clock). The story in reading order: version, kinds, codec, batch, chunk, messages, text."""
