"""The write model: Library > Document > Chunk, each chunk with its embedding, and the change log."""
