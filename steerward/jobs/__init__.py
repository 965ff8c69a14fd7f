"""Work that outlives a request: files, fine-tuning jobs, and the loop that they run."""
