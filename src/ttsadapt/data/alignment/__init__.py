"""When each phone and word of a text is said in a recording: told by its owner, or found by forced alignment."""
