"""Pictures with labels: read from what people have, split honestly, handed to training as uint8 batches."""
