"""Clips in and out: probing and decoding in a limited child process, encoding, pasting over."""
