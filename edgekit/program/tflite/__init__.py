"""TFLite files as carriers of programs: read, checked, quantized, turned into a ``torch.export`` program."""
