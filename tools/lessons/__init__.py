"""The lessons of docs/lessons: run them, write what they print back into them, draw their pictures."""
