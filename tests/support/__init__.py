"""What the tests share: fakes, strategies, simulated links. Imported as ``support``."""
