"""The part inside an application: records into memory of its own, ships it, and never gets in the program's way."""
