"""The snapshot file: `format` says what is in it, `writer` writes it, `load` reads it, also when it is damaged."""
