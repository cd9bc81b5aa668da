"""Sound: loading, features that drive the lips, text to speech."""
