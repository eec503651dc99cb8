"""Guards whose loss no other test would notice."""
