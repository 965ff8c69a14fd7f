"""Jobs of the optimisers for several objectives, from the rows of a job to a policy."""
