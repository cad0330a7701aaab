"""Judges: small networks trained once on a corpus's recordings, never on test sentences, that score what models say."""
