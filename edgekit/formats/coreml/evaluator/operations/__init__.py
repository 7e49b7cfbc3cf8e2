"""The operations, one file a family. Importing a file registers what it holds."""
